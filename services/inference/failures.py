"""The event of a request that a version of a rollout did not answer."""

from fleet_events.v1 import Failure, GenerationFailed
from fleet_kit.auth import Caller
from services.inference.chosen import Chosen
from services.inference.errors import ApiError, Busy, CannotServe, Incompatible


def failed_event(
    chosen: Chosen, error: Exception, caller: Caller, generation_id: str, replica: str
) -> GenerationFailed | None:
    """What the registry counts for the version's part in its rollout; None for a request that has none."""
    if chosen.part is None or chosen.adapter is None:
        return None
    return GenerationFailed(
        generation_id=generation_id,
        requested_model=chosen.requested,
        adapter_id=chosen.adapter_id,
        domain=chosen.adapter.domain,
        artifact_sha256=chosen.adapter.artifact.blob.sha256,
        base_model=chosen.base.name,
        rollout=chosen.part,
        failure=_kind(error),
        code=error.code if isinstance(error, ApiError) else "internal_error",
        caller=caller.subject,
        replica=replica,
    )


def _kind(error: Exception) -> Failure:
    match error:
        case CannotServe() | Incompatible():
            return Failure.REFUSED
        case Busy():
            return Failure.BUSY
    return Failure.FAULT
