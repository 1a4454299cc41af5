"""A comparison of versions as the registry answers it over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Self

from pydantic import Field

from services.registry.adapter_view import UsageView, metrics_of
from services.registry.comparing.configuration import Value
from services.registry.comparing.evidence import Evidence, Pair, Preferences, Tally
from services.registry.comparing.significance import LEVEL, PairResult, Tested
from services.registry.view import View

if TYPE_CHECKING:
    from fleet_statistics.intervals import Interval


class MetricView(View):
    """A number of a version. The interval is null where none is known."""

    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    samples: int | None = None
    source: str = Field(description="evaluation, training, or user with who set it")


class RatingView(View):
    """Mean of people's ratings, 1 to 5, with its 95 % interval; null where there are none."""

    count: int
    average: float | None
    ci_low: float | None
    ci_high: float | None


class ComparedVersion(View):
    """One of the versions, and what is known of it in numbers."""

    adapter_id: str
    status: str
    active: bool
    rating: RatingView
    usage: UsageView
    metrics: dict[str, MetricView]

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        return cls(
            adapter_id=evidence.adapter_id,
            status=evidence.adapter.status.value,
            active=evidence.adapter.active,
            rating=_rating(evidence),
            usage=UsageView.model_validate(evidence.usage),
            metrics=metric_views(evidence),
        )


class TestedView(View):
    """A measure of two versions, first minus second, and its test."""

    measure: str
    test: str
    samples: int
    difference: float
    ci_low: float | None = Field(description="95 % interval of this difference alone")
    ci_high: float | None
    chance: float = Field(description="p-value of the test alone")
    corrected: float = Field(description="p-value corrected for all tests of this comparison (Holm)")
    significant: bool

    @classmethod
    def of(cls, tested: Tested) -> Self:
        interval = tested.interval
        return cls(
            measure=tested.measure,
            test=tested.test,
            samples=tested.samples,
            difference=tested.difference,
            ci_low=interval.low if interval else None,
            ci_high=interval.high if interval else None,
            chance=tested.chance,
            corrected=tested.corrected,
            significant=tested.significant,
        )


class TallyView(View):
    """How often the first of two was preferred; ties count half in the rate, which has a 95 % interval."""

    wins: int
    ties: int
    losses: int
    win_rate: float | None
    ci_low: float | None
    ci_high: float | None

    @classmethod
    def of(cls, tally: Tally) -> Self:
        from fleet_statistics import ratings

        rate = ratings.win_rate(tally.wins, tally.ties, tally.losses)
        return cls(wins=tally.wins, ties=tally.ties, losses=tally.losses, **_bounds("win_rate", rate))


class ComparedOn(View):
    """What both versions were judged with."""

    golden_dataset_id: str
    golden_version: str
    golden_sha256: str
    judge: str
    max_tokens: int
    evaluations: dict[str, str] = Field(description="Adapter id → its evaluation")
    scored_at: dict[str, datetime]


class ComparedPair(View):
    """Two of the versions."""

    first: str
    second: str
    fair: bool = Field(description="Whether both were judged with the same golden content, judge and longest answer")
    why_not: str
    compared_on: ComparedOn | None
    measures: list[TestedView]
    preferences: dict[str, TallyView] = Field(description="people and judge, where they preferred one of these two")

    @classmethod
    def of(cls, result: PairResult) -> Self:
        return cls(
            first=result.first,
            second=result.second,
            fair=result.fair is not None,
            why_not=result.unfair,
            compared_on=_compared_on(result),
            measures=[TestedView.of(one) for one in result.tested],
            preferences={source: TallyView.of(tally) for source, tally in result.preferences.items()},
        )


class StrengthsView(View):
    """Bradley-Terry strengths, which add up to 1, and the chance to be preferred to an average other version."""

    strengths: dict[str, float]
    win_rates: dict[str, float]
    intervals: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="95 % interval of each win rate; ties count as half"
    )
    why_not: str = Field(description="Why there are none")

    @classmethod
    def of(cls, tallies: Mapping[Pair, Tally]) -> Self:
        from fleet_statistics import bradley_terry

        wins: dict[Pair, float] = {}
        for (first, second), tally in tallies.items():
            wins[first, second] = wins.get((first, second), 0) + tally.wins + tally.ties / 2
            wins[second, first] = wins.get((second, first), 0) + tally.losses + tally.ties / 2
        try:
            found, rates = bradley_terry.strengths(wins), bradley_terry.win_rates(wins)
        except bradley_terry.NotConnected as error:
            return cls(strengths={}, win_rates={}, why_not=str(error))
        return cls(
            strengths=found,
            win_rates={name: one.value for name, one in rates.items()},
            intervals={name: (one.low, one.high) for name, one in rates.items()},
            why_not="",
        )


class VersionComparison(View):
    """Versions against one another."""

    versions: list[ComparedVersion]
    differing: dict[str, dict[str, Value]] = Field(
        description="Metadata and configuration on which they do not agree: name → adapter id → value"
    )
    pairs: list[ComparedPair]
    preferences: dict[str, StrengthsView] = Field(description="people and judge: Bradley-Terry over all the versions")
    significant: list[str] = Field(description="The significant differences, a sentence each")
    level: float = Field(description="Chance that any of them is none: the tests are Holm-corrected together")

    @classmethod
    def of(
        cls,
        evidence: Sequence[Evidence],
        differing: dict[str, dict[str, Value]],
        results: Sequence[PairResult],
        preferences: Preferences,
    ) -> Self:
        met = {"people": preferences.people, "judge": preferences.judge}
        return cls(
            versions=[ComparedVersion.of(one) for one in evidence],
            differing=differing,
            pairs=[ComparedPair.of(result) for result in results],
            preferences={source: StrengthsView.of(tallies) for source, tallies in met.items() if tallies},
            significant=[_sentence(result, one) for result in results for one in result.tested if one.significant],
            level=LEVEL,
        )


def metric_views(evidence: Evidence) -> dict[str, MetricView]:
    """A version's numbers by name, with their intervals."""
    adapter, evaluation = evidence.adapter, evidence.adapter.evaluation
    trained = set(adapter.submission.training.metrics) if adapter.submission.training else set()
    found = {
        name: MetricView(value=value, source="training" if name in trained else "evaluation")
        for name, value in metrics_of(adapter).items()
    }
    if evaluation is not None:
        judged = evaluation.judgement
        found["llm_judge_score"] = MetricView(
            value=judged.score,
            ci_low=judged.ci_low,
            ci_high=judged.ci_high,
            samples=judged.decided or evaluation.samples,
            source="evaluation",
        )
        for name, one in evaluation.metrics.items():
            found[name] = MetricView(
                value=one.value, ci_low=one.ci_low, ci_high=one.ci_high, samples=one.samples, source="evaluation"
            )
    for name, own in evidence.own_metrics.items():
        bounds = {"ci_low": own.ci_low, "ci_high": own.ci_high, "samples": own.samples}
        found.setdefault(name, MetricView(value=own.value, source=f"user {own.set_by}", **bounds))
    return dict(sorted(found.items()))


def _rating(evidence: Evidence) -> RatingView:
    from fleet_statistics import ratings

    feedback = evidence.feedback
    return RatingView(count=feedback.count, **_bounds("average", ratings.mean_rating(feedback.ratings)))


def _bounds(name: str, found: Interval | None) -> dict[str, float | None]:
    low, value, high = (found.low, found.value, found.high) if found else (None, None, None)
    return {name: value, "ci_low": low, "ci_high": high}


def _compared_on(result: PairResult) -> ComparedOn | None:
    if result.fair is None:
        return None
    new, old = result.fair.new, result.fair.old
    both = {result.first: new, result.second: old}
    return ComparedOn(
        golden_dataset_id=new.golden_dataset_id,
        golden_version=new.golden_version,
        golden_sha256=new.golden_sha256,
        judge=new.judge,
        max_tokens=new.max_tokens,
        evaluations={name: one.evaluation_id for name, one in both.items()},
        scored_at={name: one.scored_at for name, one in both.items()},
    )


def _sentence(result: PairResult, one: Tested) -> str:
    first, second = (result.first, result.second) if one.difference >= 0 else (result.second, result.first)
    return (
        f"{first} is better than {second} in {one.measure} by {abs(one.difference):.2f} "
        f"(n = {one.samples}, p = {one.corrected:.4f} after Holm, {one.test})"
    )
