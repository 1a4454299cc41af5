"""`lorafleet adapters compare`, answered by the registry's own code."""

from __future__ import annotations

import json

import pytest

from services.registry.comparing import configuration
from services.registry.comparing.evidence import Preferences, Tally
from services.registry.comparing.schemas import VersionComparison
from services.registry.comparing.significance import compare_pairs, fair_pairs
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted
from tests.unit.registry.test_comparing import evaluation, evidence, scores

pytestmark = pytest.mark.unit

NEW, OLD = "tax-law-lora-v1.1.0", "tax-law-lora-v1.0.0"


@pytest.mark.requirement("AM-3.3")
def test_a_comparison_shows_what_differs_what_is_significant_and_why_a_pair_is_not_comparable(
    against: Lorafleet, service: Scripted
) -> None:
    new = evidence("1.1.0", evaluation("n"), ratings={5: 20}, description="Answers questions about taxes")
    old, older = evidence("1.0.0", evaluation("o"), ratings={1: 20}), evidence("0.9.0", evaluation("p", judge="x/1"))
    three = [new, old, older]
    fair, met = fair_pairs(three), Preferences(people={(NEW, OLD): Tally(7, 0, 2)})
    results = compare_pairs(three, fair, {"n": scores(9, 1), "o": scores(0, 2)}, met)
    differing = configuration.differences([one.adapter for one in three])
    service.answer("GET /v1/compare", VersionComparison.of(three, differing, results, met).model_dump(mode="json"))
    shown = against("adapters", "compare", NEW, OLD, "tax-law-lora-v0.9.0")
    assert shown.exit_code == 0, shown.stderr
    assert "versions=tax-law-lora-v1.1.0" in service.requests[0].path
    for told in ("metadata.description", "Answers questions about taxes", "5 [4.", "7 wins, 0 ties, 2 losses"):
        assert told in shown.stdout
    assert f"{NEW} is better than {OLD} in overall" in shown.stdout
    assert "no fair comparison: judges differ (judge/1 and x/1)" in shown.stdout
    assert json.loads(against("adapters", "compare", NEW, OLD, "--json").stdout)["level"] == 0.05


def test_a_comparison_takes_two_versions(against: Lorafleet, service: Scripted) -> None:
    refused = against("adapters", "compare", NEW, NEW)
    assert refused.exit_code == 2
    assert service.requests == []
