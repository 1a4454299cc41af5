"""Golden samples whose answers are code: refused, run, and measured, on real servers."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.evaluator.conftest import Bus, Golden, adapter, outcome, teach
from tests.integration.evaluator.model_server import ModelServer

pytestmark = pytest.mark.integration


def coded(number: int, **changes: Any) -> dict[str, Any]:
    """A sample that asks for a function."""
    return {
        "sample_id": f"c{number}",
        "prompt": f"Write a Python function that adds {number} to its argument; call it more.",
        "expected_output": f"```python\ndef more(x):\n    return x + {number}\n```",
        "tests": f"assert more(1) == {number + 1}\nassert more(-{number}) == 0",
        **changes,
    }


@pytest.mark.requirement("LA-3.2")
async def test_code_is_judged_by_its_tests_and_measured_as_pass_at_1(
    evaluator: RunningService, models: ModelServer, golden: Golden, bus: Bus, domain: str
) -> None:
    samples = [coded(n) for n in range(4)]
    await golden.make(f"{domain}-golden", domain, samples)
    who = adapter(domain)
    teach(models, who, samples)
    models.answers[who.adapter_id, samples[2]["prompt"]] = "```python\nmore = lambda y: (y * 2 + 4) / 2\n```"
    models.answers[who.adapter_id, samples[3]["prompt"]] = samples[3]["expected_output"].replace("+", "-")
    await bus.publish(v1.AdapterRegistered(adapter=who, revision=1), "registry", who.adapter_id)
    scored = await outcome(bus, who.adapter_id)

    assert isinstance(scored, v1.EvaluationScored), scored
    assert (scored.samples, scored.decided, scored.passed) == (4, 4, 3)
    (measured,) = [one for one in scored.metrics if one.name == "pass_at_1"]
    assert (measured.value, measured.samples) == (0.75, 4)
    assert measured.ci_low < 0.75 < measured.ci_high
    shown = (await evaluator.client.get(f"/v1/evaluations/{scored.evaluation_id}")).json()
    failed = next(result for result in shown["results"] if result["sample_id"] == "c3")
    assert failed["vetoes"] == ["tests: run to their end (line 1 of the tests: AssertionError: )"]


async def test_tests_that_fail_on_the_expected_output_are_refused_and_nothing_is_stored(
    golden: Golden, domain: str
) -> None:
    await golden.make(f"{domain}-golden", domain, [coded(1)])
    refused = await golden.send(f"{domain}-golden", [coded(2), coded(3, tests="assert more(0) == 4")])
    assert (refused.status_code, refused.json()["field"]) == (422, "tests")
    assert "tests of c3: the expected output itself fails: line 1 of the tests" in refused.json()["detail"]
    exported = await golden.client.get(f"/v1/golden/{domain}-golden/export")
    assert [line for line in exported.text.splitlines() if '"c2"' in line] == []
    assert '"tests":"assert more(1) == 2' in exported.text
