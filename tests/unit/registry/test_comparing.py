"""Versions compared: which evaluations are comparable, what differs, what is significant."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from services.registry.comparing import configuration
from services.registry.comparing.evidence import Evidence, Preferences, Tally, judged_preferences
from services.registry.comparing.fairness import FairPair, fair_pair
from services.registry.comparing.significance import compare_pairs, fair_pairs
from services.registry.family import Adapter, Evaluation, Preference
from services.registry.policy import Judgement
from services.registry.store.usage import Feedback, Usage
from services.registry.version import SemVer
from tests.unit.registry import builders

pytestmark = pytest.mark.unit


def evaluation(name: str, minutes: int = 0, **changes: Any) -> Evaluation:
    made = Evaluation(
        evaluation_id=name,
        scored_at=builders.START + timedelta(minutes=minutes),
        artifact_sha256="0" * 64,
        golden_dataset_id="golden",
        golden_sha256="a" * 64,
        judge="judge/1",
        judgement=Judgement(80, 75, 85),
        pass_rate=0.8,
        pass_threshold=70,
        samples=20,
        passed=16,
        max_tokens=256,
        scores=builders.blob(name),
    )
    return replace(made, **changes)


def evidence(version: str, *evaluations: Evaluation, ratings: dict[int, int] | None = None, **changes: Any) -> Evidence:
    submission = replace(builders.submission(version, version=version, job=version), **changes)
    adapter = Adapter(f"tax-law-lora-v{version}", SemVer.parse(version), submission, registered_at=builders.START)
    count = sum((ratings or {}).values())
    average = sum(rating * times for rating, times in (ratings or {}).items()) / count if count else None
    return Evidence(adapter, evaluations, Feedback(count, average, ratings or {}), Usage())


def test_the_newest_evaluations_that_were_made_alike_are_compared() -> None:
    old = evidence("1.0.0", evaluation("o1", 0), evaluation("o2", 1, judge="judge/2"), evaluation("o3", 2, judge="x/1"))
    new = evidence("1.1.0", evaluation("n1", 3), evaluation("n2", 4, judge="judge/2"), evaluation("n3", 5, judge="y/1"))
    found = fair_pair(new, old)
    assert isinstance(found, FairPair)
    assert (found.new.evaluation_id, found.old.evaluation_id) == ("n2", "o2")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"judge": "judge/2"}, "judges differ (judge/2 and judge/1)"),
        ({"max_tokens": 64}, "longest answers differ (64 and 256 tokens)"),
        (
            {"golden_sha256": "b" * 64, "golden_version": "2.0.0"},
            "golden data sets differ (golden@2.0.0 and golden@aaaa",
        ),
        ({"scores": None}, "tax-law-lora-v1.1.0 was judged by a release that stored no scores by sample"),
    ],
)
def test_what_was_judged_differently_is_not_comparable_and_says_why(changes: dict[str, Any], why: str) -> None:
    found = fair_pair(evidence("1.1.0", evaluation("n", **changes)), evidence("1.0.0", evaluation("o")))
    assert isinstance(found, str)
    assert found.startswith(why)


@pytest.mark.requirement("LA-1.4")
def test_only_what_differs_is_listed_under_its_nested_name() -> None:
    first = evidence("1.0.0")
    training = replace(builders.training("other"), configuration='{"rank":16,"optimizer":{"beta":0.5}}')
    second = evidence("1.1.0", training=training, description="Answers questions about taxes")
    found = configuration.differences([first.adapter, second.adapter])
    assert found["configuration.optimizer.beta"] == {"tax-law-lora-v1.0.0": None, "tax-law-lora-v1.1.0": 0.5}
    assert found["metadata.description"]["tax-law-lora-v1.1.0"] == "Answers questions about taxes"
    assert not {"configuration.rank", "dataset.samples", "base_model.name", "artifact.rank"} & found.keys()


def scores(shift: float, seed: int, samples: int = 40) -> dict[str, dict[str, float]]:
    rng, drawn = np.random.default_rng(seed), np.random.default_rng(0)
    names = ("accuracy", "relevance", "style", "completeness", "coherence")
    return {
        str(n): {
            "overall": float(np.clip(drawn.normal(70, 10) + shift + rng.normal(0, 3), 0, 100)),
            **{name: float(rng.uniform(0, 10)) for name in names},
        }
        for n in range(samples)
    }


@pytest.mark.requirement("AM-3.3")
def test_a_better_version_is_told_from_two_equal_ones_with_all_tests_corrected_together() -> None:
    three = [evidence(f"1.{n}.0", evaluation(f"e{n}"), ratings={5: 10, 4: 10}) for n in range(3)]
    stored = {"e0": scores(0, 1), "e1": scores(0, 2), "e2": scores(4, 3)}
    results = compare_pairs(three, fair_pairs(three), stored, Preferences())
    assert [(one.first[-5:], one.second[-5:]) for one in results] == [
        ("1.0.0", "1.1.0"),
        ("1.0.0", "1.2.0"),
        ("1.1.0", "1.2.0"),
    ]
    significant = {
        (one.first[-5:], one.second[-5:], test.measure) for one in results for test in one.tested if test.significant
    }
    assert significant == {("1.0.0", "1.2.0", "overall"), ("1.1.0", "1.2.0", "overall")}
    tested = [test for one in results for test in one.tested]
    assert len(tested) == 3 * 7
    assert min(one.corrected for one in tested) == pytest.approx(min(one.chance for one in tested) * len(tested))


def test_equal_versions_seldom_differ_whatever_the_number_of_tests() -> None:
    alarms = 0
    for seed in range(40):
        three = [evidence(f"1.{n}.0", evaluation(f"e{n}")) for n in range(3)]
        stored = {f"e{n}": scores(0, 100 * seed + n, samples=12) for n in range(3)}
        results = compare_pairs(three, fair_pairs(three), stored, Preferences())
        alarms += any(test.significant for one in results for test in one.tested)
    assert alarms <= 6  # 5 % of 40 and its spread


def test_of_several_verdicts_about_a_pair_the_newest_counts_from_whichever_side() -> None:
    first = evidence("1.0.0", evaluation("o", 9, preference=Preference("tax-law-lora-v1.1.0", 2, 5, 1)))
    second = evidence("1.1.0", evaluation("n", 3, preference=Preference("tax-law-lora-v1.0.0", 9, 0, 0)))
    found = judged_preferences((first, second))
    assert found == {("tax-law-lora-v1.0.0", "tax-law-lora-v1.1.0"): Tally(2, 1, 5)}
    met = Preferences(judge=found).of("tax-law-lora-v1.1.0", "tax-law-lora-v1.0.0")
    assert met == {"judge": Tally(5, 1, 2)}
