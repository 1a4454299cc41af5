"""Versions compared on the real servers: what differs, what is better, and where no fair comparison exists."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

import pytest

from fleet_events import v1
from fleet_kit.blobs import Blobs
from tests.conftest import RunningService, ServiceEnv
from tests.integration.registry.conftest import Get, Upstream, _TrainerSettings, eventually
from tests.integration.registry.test_loop import registered

pytestmark = pytest.mark.integration

CRITERIA = ("accuracy", "relevance", "style", "completeness", "coherence")


@pytest.fixture
def evaluator(service_env: ServiceEnv) -> Blobs:
    """The evaluator's part of the object store."""
    env = service_env("evaluator")
    names = ("port", "nats_url", "s3_endpoint", "s3_access_key", "s3_secret_key", "s3_bucket", "jwks")
    return Blobs("evaluator", _TrainerSettings(**{name: env[f"LORAFLEET_{name.upper()}"] for name in names}))  # type: ignore[arg-type]


async def judged(
    upstream: Upstream, evaluator: Blobs, adapter: dict[str, Any], points: float, **changes: Any
) -> v1.EvaluationScored:
    """A score of 24 samples around `points`, whose scores by sample are stored as the evaluator does."""
    by_sample = {
        f"s{n:02}": {"overall": points + n % 5, **dict.fromkeys(CRITERIA, 7.0), "accuracy": (points + n % 3) / 10}
        for n in range(24)
    }
    scores = await evaluator.put("scores", json.dumps(by_sample).encode())
    fields = {"scores": scores, "max_tokens": 256, "golden_version": "1.0.0"} | changes
    event = upstream.scored(adapter, points, **fields)
    await upstream.publish(event)
    return event


def answer(upstream: Upstream, adapter: dict[str, Any], name: str) -> v1.GenerationCompleted:
    return v1.GenerationCompleted(
        generation_id=name,
        adapter_id=adapter["adapter_id"],
        domain=adapter["domain"],
        artifact_sha256=adapter["artifact_sha256"],
        base_model=upstream.base_name,
        completion_tokens=3,
        latency_ms=10,
        finish_reason="stop",
    )


def liked(better: v1.GenerationCompleted, rating: int, over: str = "", by: str = "anna") -> v1.FeedbackRecorded:
    return v1.FeedbackRecorded(
        generation_id=better.generation_id,
        adapter_id=better.adapter_id,
        domain=better.domain,
        rating=rating,
        by=by,
        preferred_over=over,
    )


async def compared(registry: RunningService, *adapters: dict[str, Any]) -> Any:
    names = ",".join(one["adapter_id"] for one in adapters)
    found = await registry.client.get("/v1/compare", params={"versions": names})
    assert found.status_code == 200, found.text
    return found.json()


@pytest.mark.requirement("AM-3.3")
@pytest.mark.requirement("LA-1.4")
async def test_versions_are_compared_by_samples_ratings_preferences_and_configuration(
    *, registry: RunningService, upstream: Upstream, adapters: Get, domain: str, evaluator: Blobs
) -> None:
    configuration = json.dumps({"rank": 4, "learning_rate": 0.001, "optimizer": {"beta": 0.9}})
    digest = hashlib.sha256(configuration.encode()).hexdigest()
    old = await registered(upstream, adapters, domain)
    new = await registered(upstream, adapters, domain, seed=2, configuration=configuration, configuration_sha256=digest)
    await judged(upstream, evaluator, old, 60)
    await judged(upstream, evaluator, new, 72, golden_dataset_id="golden-v1")
    for turn in range(9):
        mine, theirs = (answer(upstream, one, f"g-{secrets.token_hex(6)}") for one in (new, old))
        # The first opinions come before the answers that they are about.
        said = [liked(mine, 5, over=theirs.generation_id), liked(theirs, 2), mine, theirs]
        for event in said if turn < 4 else reversed(said):
            await upstream.publish(event)

    async def complete() -> Any:
        found = await compared(registry, new, old)
        people = found["pairs"][0]["preferences"].get("people", {})
        full = found["pairs"][0]["fair"] and all(one["rating"]["count"] == 9 for one in found["versions"])
        return found if full and people.get("wins") == 9 else None

    found = await eventually(complete)
    first, second = found["versions"]
    assert (first["rating"]["average"], second["rating"]["average"]) == (5, 2)
    assert first["rating"]["ci_low"] < 5 <= first["rating"]["ci_high"] == 5
    assert first["metrics"]["llm_judge_score"] == {
        "value": 72, "ci_low": 69, "ci_high": 75, "samples": 40, "source": "evaluation"
    }  # fmt: skip
    assert first["metrics"]["golden_dataset_accuracy"]["value"] == 0.9
    assert first["metrics"]["train_loss"]["source"] == "training"
    assert (first["usage"]["answers"], second["usage"]["answers"]) == (9, 9)

    names = (new["adapter_id"], old["adapter_id"])
    differing = found["differing"]
    assert differing["configuration.learning_rate"] == dict(zip(names, (0.001, 0.0002), strict=True))
    assert differing["configuration.optimizer.beta"] == dict(zip(names, (0.9, None), strict=True))
    assert not {"configuration.rank", "base_model.revision", "metadata.domain"} & differing.keys()

    (pair,) = found["pairs"]
    assert pair["compared_on"]["judge"] == "reference-judge/1"
    assert (pair["compared_on"]["max_tokens"], pair["compared_on"]["golden_version"]) == (256, "1.0.0")
    measures = {one["measure"]: one for one in pair["measures"]}
    overall = measures["overall"]
    assert (overall["samples"], overall["difference"]) == (24, 12)
    assert overall["test"] == "paired sign-flip test, two-sided"
    assert 0 < overall["ci_low"] <= 12 <= overall["ci_high"]
    assert overall["chance"] < overall["corrected"] <= 0.05
    assert not measures["style"]["significant"]
    assert measures["rating"]["significant"]
    assert measures["rating"]["samples"] == 18
    people = measures["preference (people)"]
    assert (people["samples"], people["chance"]) == (9, pytest.approx(2 / 2**9))
    tests = len(pair["measures"])
    assert people["chance"] < people["corrected"] <= tests * people["chance"]
    assert any(
        line.startswith(f"{names[0]} is better than {names[1]} in overall by 12.00") for line in found["significant"]
    )
    # Nobody ever preferred the old one: no finite strength explains that.
    assert "passed over" in found["preferences"]["people"]["why_not"]


async def test_three_versions_that_met_pairwise_get_bradley_terry_strengths(
    *, registry: RunningService, upstream: Upstream, adapters: Get, domain: str, evaluator: Blobs
) -> None:
    three = [await registered(upstream, adapters, domain, seed=seed) for seed in range(3)]
    first, second, third = three
    for better, worse, wins, losses in ((second, first, 6, 3), (third, second, 6, 3)):
        preference = v1.Preference(
            compared_with=worse["adapter_id"], evaluation_id="ev-old", samples=9, wins=wins, losses=losses,
            win_rate=wins / 9, ci_low=0.1, ci_high=0.9, consistency=1.0,
        )  # fmt: skip
        await judged(upstream, evaluator, better, 80, preference=preference)

    async def complete() -> Any:
        found = (await compared(registry, *three))["preferences"].get("judge", {})
        return found if len(found.get("strengths", {})) == 3 else None

    found = await eventually(complete)
    strengths = found["strengths"]
    for name, (low, high) in found["intervals"].items():
        assert low < found["win_rates"][name] < high
    # The odds 2 : 1 twice, though the first and the third never met.
    assert strengths[third["adapter_id"]] / strengths[first["adapter_id"]] == pytest.approx(4)


async def test_a_pair_that_was_not_judged_alike_says_why_and_is_not_tested(
    *, registry: RunningService, upstream: Upstream, adapters: Get, domain: str, evaluator: Blobs
) -> None:
    old, new = [await registered(upstream, adapters, domain, seed=seed) for seed in range(2)]
    assert f"{new['adapter_id']} was never judged" in (await compared(registry, new, old))["pairs"][0]["why_not"]
    await judged(upstream, evaluator, old, 60, max_tokens=64, golden_sha256="1" * 64, golden_version="2.0.0")
    await judged(upstream, evaluator, new, 90, judge="llm-judge/2")

    async def both() -> Any:
        pair = (await compared(registry, new, old))["pairs"][0]
        return pair if "differ" in pair["why_not"] else None

    pair = await eventually(both)
    assert not pair["fair"]
    assert pair["measures"] == []
    for told in ("golden-v1@1.0.0 and golden-v1@2.0.0", "llm-judge/2 and reference-judge/1", "256 and 64 tokens"):
        assert told in pair["why_not"]

    # Judged once more as the other one was: that pair is found, whatever came after.
    await judged(upstream, evaluator, old, 61, judge="llm-judge/2")

    async def fair() -> Any:
        pair = (await compared(registry, new, old))["pairs"][0]
        return pair if pair["fair"] else None

    assert (await eventually(fair))["measures"][0]["measure"] == "overall"


@pytest.mark.parametrize("versions", ["", "only-one-lora-v1.0.0", "a,a", "a,b,c,d,e,f"])
async def test_one_version_or_too_many_are_refused(registry: RunningService, versions: str) -> None:
    found = await registry.client.get("/v1/compare", params={"versions": versions})
    assert (found.status_code, found.json()["field"]) == (422, "versions")


async def test_an_unknown_version_is_a_404(registry: RunningService) -> None:
    found = await registry.client.get("/v1/compare", params={"versions": "a-lora-v1.0.0,b-lora-v1.0.0"})
    assert found.status_code == 404
