"""A domain's approval policy and the verdict that it gives on a score. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How a score is held against the lines."""

    SIMPLE = "simple"
    CONFIDENT = "confident"


class Decision(StrEnum):
    """What becomes of a version under judgement."""

    APPROVE = "approve"
    REVIEW = "review"
    REJECT = "reject"


class InvalidPolicy(ValueError):
    """A policy whose lines contradict each other. `field` names the setting."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Policy:
    """A domain's rules. The defaults are those of LA-5.1.

    `approve_at` and `reject_below` are score points, 0 to 100. `allow_lower_threshold` says whether a training
    request may ask for an approve line below `approve_at` (it may always ask for a higher one).
    """

    mode: Mode = Mode.SIMPLE
    approve_at: float = 85.0
    reject_below: float = 70.0
    activate_on_approval: bool = True
    allow_lower_threshold: bool = True
    forbid_own_approval: bool = False

    def __post_init__(self) -> None:
        for field in ("approve_at", "reject_below"):
            value = getattr(self, field)
            if not 0 <= value <= 100:  # also refuses NaN
                raise InvalidPolicy(field, f"{field} is {value}: it has to be between 0 and 100")
        if self.reject_below > self.approve_at:
            raise InvalidPolicy(
                "reject_below",
                f"reject_below is {self.reject_below:g}, above approve_at {self.approve_at:g}: "
                "a score between them would be approved and rejected at once",
            )

    def approve_line(self, asked: float | None) -> float:
        """Score from which this version is approved without a human.

        `asked` is the request's own threshold. It replaces the domain's line, but never reaches below the reject
        line, and only raises it where the domain allows no lower one.
        """
        if asked is None:
            return self.approve_at
        floor = self.reject_below if self.allow_lower_threshold else self.approve_at
        return max(asked, floor)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The numbers of an evaluation that a policy looks at, in score points 0 to 100."""

    score: float
    ci_low: float
    ci_high: float
    regression: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the sentence that explains it to whoever reads the audit trail."""

    decision: Decision
    reason: str


def decide(policy: Policy, judgement: Judgement, asked: float | None = None) -> Verdict:
    """Hold a judgement against the policy.

    simple: the score alone. confident: the whole interval has to be on one side of a line. A significant
    regression against the version it would replace is never approved without a human, in either mode.
    """
    line = policy.approve_line(asked)
    low = judgement.ci_low if policy.mode is Mode.CONFIDENT else judgement.score
    high = judgement.ci_high if policy.mode is Mode.CONFIDENT else judgement.score
    found = f"score {judgement.score:.1f} [{judgement.ci_low:.1f}, {judgement.ci_high:.1f}]"
    what = "interval" if policy.mode is Mode.CONFIDENT else "score"
    # The score itself must hold as well: an interval is an estimate and need not contain it.
    if max(high, judgement.score) < policy.reject_below:
        return Verdict(Decision.REJECT, f"{found}: {what} below the reject line {policy.reject_below:g}")
    if min(low, judgement.score) >= line:
        if judgement.regression:
            return Verdict(
                Decision.REVIEW, f"{found}: significantly worse than the version it would replace, a human decides"
            )
        return Verdict(Decision.APPROVE, f"{found}: {what} at or above the approve line {line:g}")
    return Verdict(
        Decision.REVIEW,
        f"{found}: {what} neither at or above the approve line {line:g} nor below the reject line "
        f"{policy.reject_below:g}, a human decides",
    )
