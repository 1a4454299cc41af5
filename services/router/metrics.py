"""Metrics of the router."""

from enum import StrEnum

from prometheus_client import Counter


class Learned(StrEnum):
    """What became of feedback that an answer was routed wrongly."""

    TAUGHT = "taught"
    """It is a correction."""
    WAITS = "waits"
    """No recorded answer that `auto` routed is here yet."""
    EXPIRED = "expired"
    """None came in time: the answer was not recorded or not routed, or its text was gone."""
    NO_FAMILY = "no_family"
    """The family that it names has no live adapter."""
    BY_HAND = "by_hand"
    """The query was taught by hand, which stays."""
    FORGOTTEN = "forgotten"
    """The answer's person is erased."""


FEEDBACK = Counter(
    "lorafleet_router_feedback_total", "Feedback that an answer was routed wrongly, by what became of it", ["outcome"]
)
for _outcome in Learned:
    FEEDBACK.labels(_outcome.value)


def count(outcome: Learned, number: int = 1) -> None:
    """Count feedback of which this became."""
    FEEDBACK.labels(outcome.value).inc(number)
