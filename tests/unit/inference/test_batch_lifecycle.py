"""A batch's states, the shape in which the official client reads it, and its files' lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch, FileObject

from fleet_events.v1 import Blob
from fleet_kit.auth import Caller
from fleet_kit.caller import Grant
from services.inference.batches import lifecycle
from services.inference.batches.records import BatchRecord, Counts, FileRecord, LineFault, Owner, Usage, new_id
from services.inference.batches.results import Joined, answered, not_run, part_of

pytestmark = pytest.mark.unit

OWNER = Owner(subject="user", scopes=frozenset({"generate"}), domains=frozenset({"shop"}))
BLOB = Blob(uri="s3://lorafleet/inference/batches/file-1/" + "0" * 64, sha256="0" * 64, bytes=3)
FAULT = LineFault(code="invalid_url", message="no", param="url", line=3)


def batch() -> BatchRecord:
    return BatchRecord(
        id="batch_1",
        owner=OWNER,
        input_file_id="file-1",
        source=BLOB,
        endpoint="/v1/completions",
        created_at=1,
        expires_at=86401,
    )


STEPS: dict[str, Callable[[BatchRecord, int], BatchRecord]] = {
    "begun": lambda one, now: lifecycle.begun(one, 3, "tiny", now),
    "refused": lambda one, now: lifecycle.refused(one, [FAULT], now),
    "counted": lambda one, _: lifecycle.counted(one, 2, 1),
    "finalizing": lifecycle.finalizing,
    "cancelled": lifecycle.cancelled,
    "revoked": lifecycle.revoked,
    "ended": lambda one, now: lifecycle.ended(one, now, counts=Counts(total=3, completed=2, failed=1), usage=Usage()),
}
FOLLOWS = {
    "validating": {"validating", "in_progress", "failed", "cancelling", "expired"},
    "in_progress": {"in_progress", "finalizing", "cancelling", "expired"},
    "finalizing": {"finalizing", "completed"},
    "cancelling": {"cancelling", "cancelled"},
}
TAKES = {"begun": {"validating", "cancelling"}, "refused": {"validating", "cancelling"}}
"""States in which the runner does these; it does no step behind the end."""


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_a_batch_goes_its_way_to_one_end_and_the_client_reads_it_at_every_step(steps: list[str]) -> None:
    one = batch()
    for now, step in enumerate(steps, 2):
        if (one.ended and step != "cancelled") or one.status not in TAKES.get(step, {one.status}):
            continue
        try:
            after = STEPS[step](one, now)
        except lifecycle.NotCancellable:
            assert one.status in {"finalizing", "completed", "failed", "expired"}
            continue
        assert after.status in FOLLOWS.get(one.status, {one.status})
        if after.status != one.status:
            moment = {"validating": "created"}.get(after.status, after.status)
            assert getattr(after, f"{moment}_at") == now
        one = after
        read = Batch.model_validate(one.shown())
        assert set(one.shown()) <= set(Batch.model_fields)
        assert (read.status, read.object, read.completion_window) == (one.status, "batch", "24h")
        assert BatchRecord.model_validate_json(one.model_dump_json()) == one


def test_a_cancellation_is_kept_whatever_the_runner_does_meanwhile() -> None:
    one = lifecycle.cancelled(batch(), 2)
    assert lifecycle.cancelled(one, 3) == one
    assert lifecycle.begun(one, 3, None, 4).status == "cancelling"
    assert lifecycle.finalizing(one, 4).status == "cancelling"
    assert lifecycle.refused(one, [FAULT], 4).status == lifecycle.ended(one, 4).status == "cancelled"


def test_a_batch_of_a_revoked_credential_is_cancelled_and_names_that_unless_its_lines_are_all_kept() -> None:
    one = lifecycle.begun(lifecycle.revoked(batch(), 2), 3, None, 3)
    ended = lifecycle.ended(one, 4)
    assert (ended.status, [fault.code for fault in ended.errors]) == ("cancelled", ["credential_revoked"])
    own = lifecycle.cancelled(batch(), 2)
    done = lifecycle.finalizing(lifecycle.begun(batch(), 3, None, 2), 3)
    for untouched in (own, done, ended):
        assert lifecycle.revoked(untouched, 5) is untouched


def test_holders_that_die_without_a_line_are_counted_until_the_batch_is_given_up() -> None:
    one = lifecycle.begun(lifecycle.taken(batch(), "a"), 3, None, 2)
    for holder in "bcde":
        one = lifecycle.taken(one, holder)
    assert (one.lost, one.given_up) == (4, False)
    assert lifecycle.counted(one, 1, 0).lost == 0
    released = one.model_copy(update={"holder": ""})
    assert lifecycle.taken(released, "f").lost == 4
    given_up = lifecycle.ended(lifecycle.taken(one, "f"), 9)
    assert (given_up.status, [fault.code for fault in given_up.errors]) == ("failed", ["replicas_lost"])


def test_faults_and_files_are_shown_as_the_client_reads_them() -> None:
    read = Batch.model_validate(lifecycle.refused(batch(), [FAULT], 9).shown())
    assert read.errors is not None
    assert read.errors.data is not None
    [fault] = read.errors.data
    assert (fault.code, fault.message, fault.param, fault.line) == ("invalid_url", "no", "url", 3)
    record = FileRecord(
        id="file-1", owner=OWNER, blob=BLOB, filename="in.jsonl", purpose="batch", created_at=1, expires_at=9
    )
    file = FileObject.model_validate(record.shown())
    assert (file.id, file.bytes, file.filename, file.purpose) == ("file-1", 3, "in.jsonl", "batch")


def test_a_batch_is_its_own_subjects_with_all_of_its_domains() -> None:
    def caller(subject: str, *domains: str) -> Caller:
        return Caller(subject, frozenset({"generate"}), frozenset(domains))

    assert OWNER.shown_to(caller("user", "shop"))
    assert OWNER.shown_to(caller("user", "shop", "more"))
    assert OWNER.shown_to(caller("user", "*"))
    assert not OWNER.shown_to(caller("other", "*"))
    assert not OWNER.shown_to(caller("user", "more"))
    assert not OWNER.model_copy(update={"domains": frozenset({"*"})}).shown_to(caller("user", "shop"))


def test_a_batch_has_no_scope_that_its_caller_has_in_some_of_the_domains_alone() -> None:
    grants = (
        Grant(frozenset({"generate", "candidates"}), frozenset({"shop"})),
        Grant(frozenset({"generate"}), frozenset({"law"})),
    )
    owner = Owner.of(Caller.of_grants("user", grants))
    assert (owner.scopes, owner.domains) == ({"generate"}, {"shop", "law"})
    assert not owner.caller.can("candidates")


def test_every_line_is_in_one_of_the_two_files_once_however_often_it_was_answered(tmp_path: Path) -> None:
    joined = Joined(tmp_path / "output", tmp_path / "errors")
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    joined.add(part_of([answered("a", 200, {"usage": usage}), answered("b", 422, {"error": {}})]))
    joined.add(part_of([answered("b", 200, {"usage": usage}), answered("a", 500, {})]))
    joined.add(part_of([not_run("c", "expired")]))
    output = [json.loads(one) for one in joined.output.read_text().splitlines()]
    errors = [json.loads(one) for one in joined.errors.read_text().splitlines()]
    assert [one["custom_id"] for one in output] == ["a"]
    assert (errors[0]["custom_id"], errors[0]["error"]) == ("b", None)
    assert (errors[1]["response"], errors[1]["error"]["code"]) == (None, "batch_expired")
    assert joined.counts(3) == Counts(total=3, completed=1, failed=2)
    assert joined.usage == Usage(input_tokens=5, output_tokens=2)


def test_ids_sort_by_when_they_were_made() -> None:
    made = [new_id("file-") for _ in range(3)]
    assert len({*made}) == 3
    assert [one[:17] for one in made] == sorted(one[:17] for one in made)
