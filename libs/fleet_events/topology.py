"""The one table of the bus: event → subject → who may publish it → who consumes and who follows it.

Streams, durable consumers, NATS permissions, the event catalogue and README's table of services are made from it. An
event's way through the code starts with its row here.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import takewhile

from fleet_events import v1
from fleet_events.message import Event
from fleet_events.rows import UPSTREAM, Consumer, Row
from fleet_events.streams import (
    ANSWERS,
    DATA,
    DEAD_STREAM,
    DEAD_SUBJECTS,
    ERASABLE,
    FACTS,
    MAX_EVENT_BYTES,
    PROBE_STREAM,
    PROBE_SUBJECTS,
    SERVING,
    STREAM,
    STREAMS,
    WATCHED,
    Stream,
)

__all__ = [
    "ANSWERS",
    "CONSOLE",
    "DATA",
    "DEAD_STREAM",
    "DEAD_SUBJECTS",
    "ERASABLE",
    "EVERY_EVENT",
    "FACTS",
    "FOLLOWED_AREAS",
    "KEEPING_OBJECTS",
    "MAX_BUILDS",
    "MAX_EVENT_BYTES",
    "PROBE_STREAM",
    "PROBE_SUBJECTS",
    "SERVICES",
    "SERVING",
    "STORING",
    "STREAM",
    "STREAMS",
    "TOPOLOGY",
    "UPSTREAM",
    "WATCHED",
    "Consumer",
    "Followed",
    "Row",
    "Stream",
    "consumers_of",
    "durable_name",
    "followed_by",
    "probe_subject",
    "published_by",
    "row_of",
    "row_of_subject",
    "rows_of",
]

EVERY_EVENT = "lorafleet.v1.>"
"""Subjects of all events."""
FOLLOWED_AREAS = ("adapter", "access")
CONSOLE = "console"
SERVICES = ("registry", "trainer", "evaluator", "router", "inference", CONSOLE)
STORING = ("registry", "trainer", "evaluator", "router")
"""Services with a database."""
KEEPING_OBJECTS = (*STORING, "inference")
"""Services with a key of the object store."""


@dataclass(frozen=True)
class Followed:
    """What one service follows; see `fleet_kit.projection`."""

    events: tuple[type[Event], ...]
    subjects: str
    """The narrowest single filter that lets all of them pass: NATS permits a consumer by its filter. Empty for none."""


WEEK = timedelta(days=7)
LONGEST = timedelta(days=368)
"""Over the longest life of a token or API key, 366 days (`fleet_kit.caller.LONGEST_LIFE`), by whatever clock."""


def _long(service: str) -> Consumer:
    # One at a time: this work takes the whole machine. Lost workers are noticed after 20 s.
    return Consumer(service, ack_wait=timedelta(seconds=20), max_ack_pending=64, workers=1)


MAX_BUILDS = 8
"""Builds of data sets that one trainer can be set to run at a time."""

TOPOLOGY: tuple[Row, ...] = (
    Row(v1.SampleRecorded, "lorafleet.v1.data.sample_recorded", (UPSTREAM,), (Consumer("trainer", shared=True),)),
    Row(
        v1.PreferenceRecorded, "lorafleet.v1.data.preference_recorded", (UPSTREAM,), (Consumer("trainer", shared=True),)
    ),
    Row(
        v1.FeedbackRecorded,
        "lorafleet.v1.data.feedback_recorded",
        (UPSTREAM, "inference"),
        (Consumer("registry"), Consumer("trainer"), Consumer("router")),
    ),
    Row(
        v1.GenerationRecorded,
        "lorafleet.v1.answer.generation_recorded",
        ("inference",),
        # The evaluator judges a sample of a rollout's, and lets all others pass.
        (Consumer("trainer", shared=True), Consumer("router", shared=True), replace(_long("evaluator"), workers=4)),
        stored_in=ANSWERS,
    ),
    # Tickets: the trainer's database decides which build is next, its settings how many run at once (up to `workers`).
    Row(
        v1.DatasetQueued,
        "lorafleet.v1.data.dataset_queued",
        ("trainer",),
        (replace(_long("trainer"), workers=MAX_BUILDS),),
    ),
    # A ticket too. What is erased is in the trainer's database: the bus never names the person.
    Row(v1.ErasureQueued, "lorafleet.v1.data.erasure_queued", ("trainer",), (_long("trainer"),)),
    Row(
        v1.SubjectForgotten,
        "lorafleet.v1.data.subject_forgotten",
        ("trainer",),
        (Consumer("registry"), Consumer("router")),
    ),
    Row(
        v1.SubjectErased,
        "lorafleet.v1.data.subject_erased",
        ("registry", "evaluator", "router", "inference"),
        (Consumer("trainer"),),
    ),
    Row(v1.DatasetFrozen, "lorafleet.v1.data.dataset_frozen", ("trainer",)),
    # Accepted at once, also during a training: only so is it known which waiting job has the highest priority. What
    # comes over HTTP is accepted there; the trainer itself publishes what its retraining rules ask
    # for, and the registry what carries a version over to another base model.
    Row(
        v1.TrainingRequested,
        "lorafleet.v1.training.requested",
        (UPSTREAM, "trainer", "registry"),
        (Consumer("trainer"),),
    ),
    # Tickets as well: a worker that gets one trains the best job that waits.
    Row(v1.TrainingQueued, "lorafleet.v1.training.queued", ("trainer",), (_long("trainer"),)),
    Row(v1.TrainingStarted, "lorafleet.v1.training.started", ("trainer",)),
    Row(v1.TrainingProgressed, "lorafleet.v1.training.progressed", ("trainer",), keep=WEEK),
    Row(v1.TrainingCompleted, "lorafleet.v1.training.completed", ("trainer",), (Consumer("registry"),)),
    Row(v1.TrainingFailed, "lorafleet.v1.training.failed", ("trainer",), (Consumer("registry"),)),
    Row(v1.TrainingCancelled, "lorafleet.v1.training.cancelled", ("trainer",), (Consumer("registry"),)),
    Row(v1.TrainingPaused, "lorafleet.v1.training.paused", ("trainer",)),
    Row(
        v1.AdapterRegistered,
        "lorafleet.v1.adapter.registered",
        ("registry",),
        (_long("evaluator"), Consumer("trainer")),
        followed_by=("inference",),
    ),
    Row(
        v1.EvaluationRequested,
        "lorafleet.v1.evaluation.requested",
        (UPSTREAM, "evaluator"),
        (_long("evaluator"),),
    ),
    # Kept for good: a trainer that starts from an empty database needs every golden data set there is.
    Row(v1.GoldenDatasetPublished, "lorafleet.v1.evaluation.golden_published", ("evaluator",), (Consumer("trainer"),)),
    Row(v1.EvaluationScored, "lorafleet.v1.evaluation.scored", ("evaluator",), (Consumer("registry"),)),
    Row(v1.EvaluationFailed, "lorafleet.v1.evaluation.failed", ("evaluator",), (Consumer("registry"),)),
    Row(v1.RegressionDetected, "lorafleet.v1.evaluation.regression_detected", ("evaluator",)),
    # Beside the facts: it grows with the answers.
    Row(
        v1.AnswerJudged,
        "lorafleet.v1.evaluation.answer_judged",
        ("evaluator",),
        (Consumer("registry", shared=True),),
        keep=WEEK,
        stored_in=SERVING,
    ),
    Row(v1.Approved, "lorafleet.v1.adapter.approved", ("registry",), followed_by=("inference",)),
    Row(v1.Rejected, "lorafleet.v1.adapter.rejected", ("registry",), followed_by=("inference",)),
    Row(v1.ReviewRequested, "lorafleet.v1.adapter.review_requested", ("registry",)),
    Row(
        v1.AdapterActivated,
        "lorafleet.v1.adapter.activated",
        ("registry",),
        (Consumer("router"), Consumer("evaluator"), Consumer("trainer")),
        followed_by=("router", "inference"),
    ),
    Row(
        v1.AdapterDeactivated,
        "lorafleet.v1.adapter.deactivated",
        ("registry",),
        (Consumer("router"), Consumer("trainer")),
        followed_by=("router", "inference"),
    ),
    Row(v1.AdapterRolledBack, "lorafleet.v1.adapter.rolled_back", ("registry",)),
    # Among the adapters' subjects: who follows those is let see no more for it.
    Row(v1.PolicyChanged, "lorafleet.v1.adapter.policy_changed", ("registry",), followed_by=("inference",)),
    Row(v1.CanaryStarted, "lorafleet.v1.adapter.canary_started", ("registry",), followed_by=("inference",)),
    Row(v1.CanaryAdvanced, "lorafleet.v1.adapter.canary_advanced", ("registry",), followed_by=("inference",)),
    Row(v1.CanaryRolledBack, "lorafleet.v1.adapter.canary_rolled_back", ("registry",), followed_by=("inference",)),
    Row(v1.UpdateRecommended, "lorafleet.v1.adapter.update_recommended", ("registry",)),
    Row(
        v1.AdapterReleased,
        "lorafleet.v1.adapter.released",
        ("registry",),
        (Consumer("trainer"), Consumer("evaluator")),
        followed_by=("inference",),
    ),
    Row(v1.AdapterHeld, "lorafleet.v1.adapter.held", ("registry",)),
    # Who may call: every service verifies by itself. Gone from the stream once the longest token and key have ended.
    Row(v1.ApiKeyCreated, "lorafleet.v1.access.key_created", ("registry",), followed_by=SERVICES, keep=LONGEST),
    Row(v1.ApiKeyRevoked, "lorafleet.v1.access.key_revoked", ("registry",), followed_by=SERVICES, keep=LONGEST),
    Row(v1.TokenRevoked, "lorafleet.v1.access.token_revoked", ("registry",), followed_by=SERVICES, keep=LONGEST),
    # Beside the subjects that are followed: it grows with the requests.
    Row(
        v1.ApiKeysUsed, "lorafleet.v1.usage.keys_used", SERVICES, (Consumer("registry"),), keep=WEEK, stored_in=SERVING
    ),
    Row(
        v1.AdapterLoaded,
        "lorafleet.v1.serving.adapter_loaded",
        ("inference",),
        (Consumer("registry"),),
        keep=WEEK,
    ),
    Row(
        v1.AdapterUnloaded,
        "lorafleet.v1.serving.adapter_unloaded",
        ("inference",),
        (Consumer("registry"),),
        keep=WEEK,
    ),
    Row(
        v1.GenerationCompleted,
        "lorafleet.v1.serving.generation_completed",
        ("inference",),
        (Consumer("registry", shared=True),),
        keep=WEEK,
    ),
    Row(
        v1.GenerationFailed,
        "lorafleet.v1.serving.generation_failed",
        ("inference",),
        (Consumer("registry", shared=True),),
        keep=WEEK,
    ),
)

_BY_EVENT = {row.event: row for row in TOPOLOGY}
_BY_SUBJECT = {row.subject: row for row in TOPOLOGY}


def row_of(event: type[Event]) -> Row:
    """The row of an event class; raises KeyError for one that the table lacks."""
    return _BY_EVENT[event]


def row_of_subject(subject: str) -> Row | None:
    """The row of a subject, or None."""
    return _BY_SUBJECT.get(subject)


def durable_name(consumer: Consumer, row: Row) -> str:
    """Name of a durable, for example registry-training_completed."""
    return f"{consumer.service}-{row.subject.removeprefix('lorafleet.v1.').replace('.', '_')}"


def probe_subject(service: str) -> str:
    """Subject on which a service's readiness probes the server's storage."""
    return PROBE_SUBJECTS.replace(">", service)


def rows_of(stream: Stream) -> tuple[Row, ...]:
    """What a stream holds."""
    return tuple(row for row in TOPOLOGY if row.stream is stream)


def consumers_of(service: str) -> tuple[tuple[Row, Consumer], ...]:
    """What a service consumes durably."""
    return tuple((row, one) for row in TOPOLOGY for one in row.consumed_by if one.service == service)


def published_by(service: str) -> tuple[str, ...]:
    """Subjects that a service, or `upstream`, may publish."""
    return tuple(row.subject for row in TOPOLOGY if service in row.published_by)


def followed_by(service: str, area: str = "adapter") -> Followed:
    """What a service follows in one area: each has a filter of its own, so that it stays narrow."""
    rows = [row for row in TOPOLOGY if service in row.followed_by and row.area == area]
    levels = zip(*(row.subject.split(".") for row in rows), strict=True)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return Followed(tuple(row.event for row in rows), ".".join([*shared, ">"] if len(rows) > 1 else shared))
