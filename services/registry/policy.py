"""A domain's approval policy and the verdict that it gives on a score. Pure; docs/decision-rules.md has the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fleet_events.v1 import PersonalDataAction, RecordAnswers
from services.registry.migrating.rule import MIGRATION_STRATEGIES, MigrationRule
from services.registry.required import Measured, Preferred, unmet_metric, unmet_preference
from services.registry.rollout.rules import Delivery


class Mode(StrEnum):
    """How a score is held against the lines."""

    SIMPLE = "simple"
    CONFIDENT = "confident"


class Decision(StrEnum):
    """What follows from a score."""

    APPROVE = "approve"
    REVIEW = "review"
    REJECT = "reject"


class InvalidPolicy(ValueError):
    """A policy whose lines contradict each other. `field` names the setting."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


CRITERIA = ("accuracy", "relevance", "style", "completeness", "coherence")
"""The judged criteria (LA-3.1)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A domain's rules. The lines are those of LA-5.1.

    `approve_at` and `reject_below` are score points, 0 to 100. `minimum_samples` is the fewest scored samples on which
    `confident` approves, and compares, without a human. A significant fall blocks from `smallest_relevant_difference`
    score points on, and of a criterion in `blocking_criteria` from a tenth of that on its scale of 0 to 10.
    `allow_lower_threshold`: whether a training request may set an approve line below `approve_at` (it may
    always set a higher one). `allow_approval_without_evaluation`: whether a human may approve a version that
    has no score. Where the judge's agreement with people (alpha; the lower end of its interval in `confident`) is below
    `minimum_agreement`, or unknown, nothing is approved without a human; None looks at none. `delivery` has the rules
    by which an approved version takes over from the active one.
    `comparison_required` says whether a version that replaces another needs a fair comparison with it to be approved
    without a human; None: in `confident` alone. An update is recommended from an improvement of more than
    `update_minimum_improvement` per cent on; `apply_updates` says whether it is activated by itself. Of
    `migration_strategies` the first that fits counts; under `follow_base_model` the active versions are migrated by
    themselves when their base model has a new revision.

    `record_answers` says which answers of the domain may become training data; `record_fraction` is the share of
    requests where it is `sampled`, else 0. `personal_data` is what happens to personal data in them before that.
    """

    mode: Mode = Mode.CONFIDENT
    approve_at: float = 85.0
    reject_below: float = 70.0
    activate_on_approval: bool = True
    allow_lower_threshold: bool = True
    forbid_own_approval: bool = False
    delivery: Delivery = field(default_factory=Delivery)
    allow_approval_without_evaluation: bool = False
    minimum_samples: int = 20
    smallest_relevant_difference: float = 2.0
    blocking_criteria: tuple[str, ...] = CRITERIA
    minimum_agreement: float | None = None
    minimum_metrics: dict[str, float] = field(default_factory=dict)
    """By metric, 0 to 1: below it (its lower end in `confident`), or without it, nothing is approved alone."""
    minimum_win_rate: float | None = None
    """The same for how often answers are preferred to those of the version that it replaces, ties as half."""
    comparison_required: bool | None = None
    update_minimum_improvement: float = 2.0
    apply_updates: bool = False
    migration_strategies: tuple[MigrationRule, ...] = ()
    follow_base_model: bool = False
    record_answers: RecordAnswers = RecordAnswers.NONE
    record_fraction: float = 0.0
    personal_data: PersonalDataAction = PersonalDataAction.MASK

    def __post_init__(self) -> None:
        for name in ("approve_at", "reject_below", "smallest_relevant_difference", "update_minimum_improvement"):
            value = getattr(self, name)
            if not 0 <= value <= 100:  # also refuses NaN
                raise InvalidPolicy(name, f"{name} is {value}, expected 0 to 100")
        if self.reject_below > self.approve_at:
            raise InvalidPolicy(
                "reject_below",
                f"reject_below is {self.reject_below:g}, above approve_at {self.approve_at:g}: "
                "a score between them would be approved and rejected at once",
            )
        if self.minimum_samples < 1:
            raise InvalidPolicy("minimum_samples", f"minimum_samples is {self.minimum_samples}, expected 1 or more")
        if self.minimum_agreement is not None and not -1 <= self.minimum_agreement <= 1:
            raise InvalidPolicy(
                "minimum_agreement", f"minimum_agreement is {self.minimum_agreement}, expected between -1 and 1"
            )
        bounds = {f"minimum_metrics.{name}": least for name, least in self.minimum_metrics.items()}
        for name, least in (bounds | {"minimum_win_rate": self.minimum_win_rate or 0.0}).items():
            if not 0 <= least <= 1:
                raise InvalidPolicy(name, f"{name} is {least}, expected 0 to 1")
        if odd := [rule.strategy for rule in self.migration_strategies if rule.strategy not in MIGRATION_STRATEGIES]:
            raise InvalidPolicy(
                "migration_strategies",
                f"migration_strategies has {odd[0]!r}, expected some of {', '.join(MIGRATION_STRATEGIES)}",
            )
        sampled = self.record_answers is RecordAnswers.SAMPLED
        if sampled and not 0 < self.record_fraction <= 1:
            raise InvalidPolicy(
                "record_fraction",
                f"record_fraction is {self.record_fraction:g}, expected above 0 and at most 1 for sampled answers",
            )
        if not sampled and self.record_fraction != 0:
            raise InvalidPolicy(
                "record_fraction",
                f"record_fraction is {self.record_fraction:g}, expected 0 with record_answers {self.record_answers}: "
                "it belongs to sampled",
            )
        if self.delivery.is_judged and self.record_answers is RecordAnswers.NONE:
            raise InvalidPolicy(
                "delivery.metrics",
                "delivery.metrics has judge, which scores recorded answers, and record_answers is none: "
                "permit some, or leave judge out",
            )
        if unknown := [name for name in self.blocking_criteria if name not in CRITERIA]:
            raise InvalidPolicy(
                "blocking_criteria", f"blocking_criteria has {unknown[0]!r}, expected some of {', '.join(CRITERIA)}"
            )

    @property
    def compares(self) -> bool:
        """Whether a version that was not fairly compared with the one it replaces waits for a human."""
        return self.mode is Mode.CONFIDENT if self.comparison_required is None else self.comparison_required

    def approve_line(self, requested: float | None) -> float:
        """Score from which this version is approved without a human.

        `requested` is the request's own threshold. It replaces the domain's line, but never reaches below the reject
        line, and only raises it where the domain allows no lower one.
        """
        if requested is None:
            return self.approve_at
        floor = self.reject_below if self.allow_lower_threshold else self.approve_at
        return max(requested, floor)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A version against another on the same samples: new minus old, in score points; criteria on 0 to 10.

    `fallen` has the criteria that fell significantly, with the mean of their differences.
    """

    compared_with: str
    samples: int
    difference: float
    ci_low: float
    ci_high: float
    fallen: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the judge agrees with people in this domain: Krippendorff's alpha with its interval, at most 1."""

    answers: int
    alpha: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The numbers of an evaluation that a policy looks at, in score points 0 to 100.

    `decided` is the number of samples that have a score. `regression` counts where there is no comparison to look at.
    """

    score: float
    ci_low: float
    ci_high: float
    regression: bool = False
    decided: int = 0
    comparison: Comparison | None = None
    agreement: Agreement | None = None
    not_compared: str = ""
    """Why the evaluator could not compare it with the version that it would replace."""
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    preferred: Preferred | None = None

    @property
    def interval(self) -> tuple[float, float, float]:
        """Score and both ends, by which a repeated score is recognised."""
        return self.score, self.ci_low, self.ci_high


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and the sentence that explains it in the audit trail."""

    decision: Decision
    reason: str


def decide(policy: Policy, judgement: Judgement, requested: float | None = None, replaces: str = "") -> Verdict:
    """Hold a judgement against the policy; `replaces` is the version that this one would take over from, if any.

    simple: the score alone. confident: the whole interval has to be on one side of a line, on enough samples, and the
    version compared with the one it replaces. A relevant fall against that one is never approved without a human, in
    either mode.
    """
    line = policy.approve_line(requested)
    low = judgement.ci_low if policy.mode is Mode.CONFIDENT else judgement.score
    high = judgement.ci_high if policy.mode is Mode.CONFIDENT else judgement.score
    found = f"score {judgement.score:.1f} [{judgement.ci_low:.1f}, {judgement.ci_high:.1f}]"
    what = "interval" if policy.mode is Mode.CONFIDENT else "score"
    # The score itself must hold as well: an interval is an estimate and need not contain it.
    if max(high, judgement.score) < policy.reject_below:
        return Verdict(Decision.REJECT, f"{found}: {what} is below the reject threshold {policy.reject_below:g}")
    if min(low, judgement.score) < line:
        return Verdict(
            Decision.REVIEW,
            f"{found}: {what} is between the reject ({policy.reject_below:g}) and approve ({line:g}) thresholds: "
            "human review required",
        )
    confident = policy.mode is Mode.CONFIDENT
    doubt = (
        _fall(policy, judgement)
        or _untrusted_judge(policy, judgement)
        or unmet_metric(policy.minimum_metrics, judgement.metrics, confident=confident)
        or unmet_preference(policy.minimum_win_rate, judgement.preferred, replaces, confident=confident)
    )
    if not doubt and policy.mode is Mode.CONFIDENT:
        doubt = _thin_evidence(policy, judgement)
    uncompared = _uncompared(policy, judgement, replaces)
    if not doubt and policy.compares:
        doubt = uncompared
    if doubt:
        return Verdict(Decision.REVIEW, f"{found}: {doubt}: human review required")
    noted = f"; {uncompared}" if uncompared else ""
    return Verdict(Decision.APPROVE, f"{found}: {what} is at or above the approve threshold {line:g}{noted}")


def _fall(policy: Policy, judgement: Judgement) -> str:
    """What got relevantly worse; empty for nothing."""
    comparison = judgement.comparison
    if comparison is None:
        return "significantly worse than the version it would replace" if judgement.regression else ""
    least = policy.smallest_relevant_difference
    if comparison.ci_high < 0 and comparison.difference <= -least:
        return f"{-comparison.difference:.1f} points worse than {comparison.compared_with}"
    fallen = {
        name: -change
        for name, change in comparison.fallen.items()
        if name in policy.blocking_criteria and change <= -least / 10
    }
    if not fallen:
        return ""
    lost = ", ".join(f"{name} (by {change:.1f} of 10)" for name, change in sorted(fallen.items()))
    return f"worse than {comparison.compared_with} in {lost}"


def _untrusted_judge(policy: Policy, judgement: Judgement) -> str:
    """Why the judge's scores cannot approve by themselves; empty where they can."""
    least, found = policy.minimum_agreement, judgement.agreement
    if least is None:
        return ""
    if found is None:
        return f"too few answers are labelled to hold the judge against the policy's minimum agreement of {least:g}"
    alpha = found.ci_low if policy.mode is Mode.CONFIDENT else found.alpha
    if alpha >= least:
        return ""
    which = "lower end of the agreement" if policy.mode is Mode.CONFIDENT else "agreement"
    return (
        f"{which} of judge and people is {alpha:.2f} (alpha, {found.answers} answers), below the policy's minimum of "
        f"{least:g}"
    )


def _thin_evidence(policy: Policy, judgement: Judgement) -> str:
    """Why the numbers are too few to approve on; empty where they are not."""
    least = policy.minimum_samples
    if judgement.decided < least:
        return f"{judgement.decided} scored samples, fewer than the policy's minimum of {least}"
    if judgement.ci_high <= judgement.ci_low:
        return "an interval of zero width"
    return ""


def _uncompared(policy: Policy, judgement: Judgement, replaces: str) -> str:
    """Why there is no fair comparison with the version that it would replace; empty where there is, or none is due."""
    least, comparison = policy.minimum_samples, judgement.comparison
    if not replaces:
        return ""
    if comparison is None or comparison.compared_with != replaces:
        why = f" ({judgement.not_compared})" if judgement.not_compared else ""
        return f"not compared with {replaces}, which it would replace{why}"
    if policy.mode is Mode.CONFIDENT and comparison.samples < least:
        return f"compared with {replaces} on {comparison.samples} samples, fewer than the policy's minimum of {least}"
    return ""
