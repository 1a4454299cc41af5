"""Panels of judges: calibrated means, abstaining members, must-rules; and what a panel is called."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.agreement import Labelled
from services.evaluator.judging.calibration import LEAST, UNCALIBRATED, Calibration, fit
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.judge import Finding, JudgeDescription
from services.evaluator.judging.judgement import Judgement, Verdict, estimated, judged, unjudged, vetoed
from services.evaluator.judging.pair_agreement import PairAccuracy
from services.evaluator.judging.panel_judge import Member, PanelJudge, combined

SAMPLE = GoldenSample("s", "Where?", "At the pier.", criteria={"style": "note: must be polite; Must mention pier"})


class Fixed:
    """A judge that gives every answer the same judgement."""

    def __init__(self, name: str, found: Judgement) -> None:
        self.name, self.found = name, found
        self.description = JudgeDescription(name, "1", "", "", {})
        self.calibrations: Mapping[str, Calibration] = {name: UNCALIBRATED}

    async def judge(self, sample: GoldenSample, question: str, answer: str, ledger: object) -> Finding:
        return Finding(self.found, {"by": self.name})


def scores(value: float) -> Judgement:
    return judged(dict.fromkeys(Criterion, Verdict(value, f"I give {value}")))


def votes(*found: Judgement, calibration: Calibration = UNCALIBRATED) -> list[tuple[Member, Judgement]]:
    return [(Member(Fixed(f"j{n}", one), calibration), one) for n, one in enumerate(found)]


def test_the_mean_of_the_calibrated_scores_counts_with_the_nearest_members_reason() -> None:
    doubled = Calibration(10.0, 0.5, 30)
    found = combined(SAMPLE, [*votes(scores(8), calibration=doubled), *votes(scores(9))])
    assert found.verdicts[Criterion.ACCURACY].score == pytest.approx((5 + 9) / 2)
    assert found.overall == 70
    assert "I give" in found.verdicts[Criterion.ACCURACY].reason


def test_members_that_cannot_tell_are_left_out_and_half_of_them_leave_no_score() -> None:
    unsure = estimated(scores(2), "no rule settles it")
    assert combined(SAMPLE, votes(scores(8), scores(9), unsure)).overall == 85
    half = combined(SAMPLE, votes(scores(8), unsure))
    assert (half.overall, half.standing) == (None, "unjudged")
    assert "1 of 2 members could decide; j1: no rule settles it" in half.why
    assert combined(SAMPLE, votes(unjudged("cut off"), unjudged("cut off"))).overall is None


def test_a_must_rule_is_broken_where_most_members_find_it_so() -> None:
    impolite = vetoed(scores(9), {Criterion.STYLE: ("note: must be polite",)})
    found = combined(SAMPLE, votes(impolite, impolite, scores(9)))
    assert found.vetoes == ("note: must be polite",)
    assert found.verdicts[Criterion.STYLE].score == 0
    assert found.overall is not None
    assert found.overall < 40
    assert combined(SAMPLE, votes(impolite, scores(9), scores(9))).vetoes == ()


def test_a_panel_is_another_judge_once_a_member_or_a_calibration_changed() -> None:
    panels = [
        PanelJudge("house", [Member(Fixed(name, scores(5)), calibration)])
        for name, calibration in (("a", UNCALIBRATED), ("b", UNCALIBRATED), ("a", Calibration(1, 0.9, 20)))
    ]
    assert len({panel.name for panel in panels}) == 3
    measured = PanelJudge("house", [Member(Fixed("a", scores(9)), UNCALIBRATED, PairAccuracy(20, 15))])
    assert measured.name != panels[0].name
    assert panels[0].name == PanelJudge("house", [Member(Fixed("a", scores(9)), UNCALIBRATED)]).name


def test_the_evidence_keeps_what_every_member_found() -> None:
    panel = PanelJudge(
        "house", [Member(Fixed("a", scores(5)), UNCALIBRATED), Member(Fixed("b", scores(7)), UNCALIBRATED)]
    )
    finding = asyncio.run(panel.judge(SAMPLE, "Where?", "Here.", None))  # type: ignore[arg-type]
    assert finding.judgement.overall == 60
    assert finding.evidence["members"]["a"]["overall"] == 50
    assert finding.evidence["members"]["b"]["evidence"] == {"by": "b"}


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=LEAST, max_size=60))
def test_a_calibration_keeps_the_order_of_scores_and_the_scale(pairs: list[tuple[float, float]]) -> None:
    fitted = fit([Labelled(judge, human, 10) for judge, human in pairs])
    assert fitted is not None
    mapped = [fitted.of_points(score) for score in range(0, 101, 10)]
    assert mapped == sorted(mapped)
    assert all(0 <= score <= 100 for score in mapped)


def test_a_harsh_judge_is_brought_to_peoples_scale_and_few_labels_calibrate_none() -> None:
    labelled = [Labelled(score, min(100.0, score + 20), 10) for score in range(0, 80, 4)]
    fitted = fit(labelled)
    assert fitted is not None
    assert fitted.of_points(50) == pytest.approx(70)
    assert fitted.of_criterion(5) == pytest.approx(7)
    assert fit(labelled[: LEAST - 1]) is None


def test_a_judge_whose_scores_fall_as_peoples_rise_tells_the_average_alone() -> None:
    fitted = fit([Labelled(100 - score, score, 10) for score in range(0, 100, 5)])
    assert fitted is not None
    assert fitted.slope == 0
    assert fitted.of_points(0) == fitted.of_points(100) == pytest.approx(47.5)
