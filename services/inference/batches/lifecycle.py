"""A batch's states: (record, what happened) → the record that follows. Pure; `now` is in Unix seconds.

validating → in_progress → finalizing → completed, validating → failed; cancelling → cancelled and expired from any
state that is not an end.
"""

from collections.abc import Sequence

from services.inference.batches.records import MOST_ERRORS, BatchRecord, Counts, LineFault, Usage


class NotCancellable(Exception):
    """The batch is at its end already."""


def taken(batch: BatchRecord, holder: str) -> BatchRecord:
    """Another process runs it; one that released it before had left no name."""
    return batch.model_copy(update={"holder": holder, "lost": batch.lost + bool(batch.holder)})


def begun(batch: BatchRecord, total: int, model: str | None, now: int) -> BatchRecord:
    """All lines are valid: they are run. One that is being cancelled keeps its state."""
    status = "in_progress" if batch.status == "validating" else batch.status
    changes = {"status": status, "in_progress_at": now, "model": model, "counts": Counts(total=total)}
    return batch.model_copy(update=changes)


def refused(batch: BatchRecord, faults: Sequence[LineFault], now: int) -> BatchRecord:
    """Its file is no batch; nothing of it was run."""
    if batch.status == "cancelling":
        return ended(batch, now)
    changes = {"status": "failed", "failed_at": now, "errors": tuple(faults[:MOST_ERRORS]), "holder": ""}
    return batch.model_copy(update=changes)


def counted(batch: BatchRecord, completed: int, failed: int) -> BatchRecord:
    """So many lines are kept."""
    counts = Counts(total=batch.counts.total, completed=completed, failed=failed)
    return batch.model_copy(update={"counts": counts, "lost": 0})


def finalizing(batch: BatchRecord, now: int) -> BatchRecord:
    """Every line is kept; its files are made. One that is being cancelled keeps its state."""
    if batch.status != "in_progress":
        return batch
    return batch.model_copy(update={"status": "finalizing", "finalizing_at": now})


def cancelled(batch: BatchRecord, now: int) -> BatchRecord:
    """Its caller wants no more of it; again is the same.

    Raises:
        NotCancellable: it is finalizing, or at another end.
    """
    if batch.status in ("cancelling", "cancelled"):
        return batch
    if batch.status not in ("validating", "in_progress"):
        raise NotCancellable(batch.status)
    return batch.model_copy(update={"status": "cancelling", "cancelling_at": now})


def revoked(batch: BatchRecord, now: int) -> BatchRecord:
    """Its owner's key or token was revoked: cancelled with that reason, unless every line is kept already."""
    if batch.status not in ("validating", "in_progress"):
        return batch
    fault = LineFault(code="credential_revoked", message="the API key or token that made this batch was revoked")
    return cancelled(batch, now).model_copy(update={"errors": (fault,)})


def ended(
    batch: BatchRecord,
    now: int,
    *,
    output_file_id: str | None = None,
    error_file_id: str | None = None,
    counts: Counts | None = None,
    usage: Usage | None = None,
) -> BatchRecord:
    """Its files are there: completed, or what it was stopped as."""
    otherwise = "failed" if batch.given_up else "expired"
    status = {"cancelling": "cancelled", "finalizing": "completed"}.get(batch.status, otherwise)
    fault = LineFault(code="replicas_lost", message=f"{batch.lost} replicas in a row ended while they ran this batch")
    return batch.model_copy(
        update={
            "status": status,
            f"{status}_at": now,
            "output_file_id": output_file_id,
            "error_file_id": error_file_id,
            "counts": counts or batch.counts,
            "usage": usage,
            "errors": (fault,) if status == "failed" else batch.errors,
            "holder": "",
        }
    )
