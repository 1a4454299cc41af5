"""From TrainingCompleted to counted answers, by events, on the real servers and the real base model's shapes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from fleet_events import v1
from tests.conftest import RunningService
from tests.integration.registry.conftest import Get, Upstream, eventually

pytestmark = pytest.mark.integration


async def registered(upstream: Upstream, adapters: Get, domain: str, **changes: Any) -> dict[str, Any]:
    before = len(await adapters(domain))
    await upstream.publish(await upstream.trained(domain, **changes))

    async def more() -> Any:
        found = await adapters(domain)
        return found if len(found) > before else None

    return (await eventually(more))[0]  # type: ignore[no-any-return]


async def status(registry: RunningService, adapter_id: str, wanted: str) -> dict[str, Any]:
    async def check() -> Any:
        found = (await registry.client.get(f"/v1/adapters/{adapter_id}")).json()
        return found if found["status"] == wanted else None

    return await eventually(check)  # type: ignore[no-any-return]


@pytest.mark.requirement("TP-5.1")
@pytest.mark.requirement("TP-5.2")
@pytest.mark.requirement("AM-1.2")
@pytest.mark.requirement("LA-1.3")
async def test_a_finished_training_becomes_a_version_linked_to_its_data_configuration_and_report(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    event = await upstream.trained(domain)
    await upstream.publish(event)
    (listed,) = await eventually(lambda: adapters(domain))
    assert listed["adapter_id"] == f"{domain}-lora-v1.0.0"
    assert (listed["status"], listed["active"]) == ("pending_review", False)
    found = (await registry.client.get(f"/v1/adapters/{listed['adapter_id']}")).json()
    assert found["training"]["dataset"]["blob"]["sha256"] == event.dataset.blob.sha256
    assert found["training"]["configuration"] == event.configuration
    assert found["training"]["report"]["sha256"] == event.report.sha256
    assert found["base_model"] == {"name": upstream.base_name, "revision": upstream.revision}
    assert found["artifact_sha256"] == event.artifact.blob.sha256
    assert found["metrics"]["train_loss"] == 0.42
    report = await registry.client.get(f"/v1/adapters/{listed['adapter_id']}/report")
    assert report.json()["hyperparameters"] == {"rank": 4}
    events = await eventually(lambda: upstream.published(v1.AdapterRegistered, domain=domain))
    assert events[0].adapter.artifact.blob == event.artifact.blob
    assert (events[0].revision, events[0].job_id) == (1, event.job_id)


@pytest.mark.requirement("TP-5.2")
@pytest.mark.requirement("AS-1.2")
@pytest.mark.requirement("AS-2.3")
async def test_a_version_keeps_its_page_model_card_and_forms_and_its_manifest_names_them(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    event = await upstream.trained(domain, adapter_type="intent-classifier", objective="dpo")
    form = v1.Export(
        kind="int8", blob=event.artifact.blob, same_token=0.99, validation_loss=1.5, quality_threshold=0.98, fit=True
    )
    page = await upstream.blobs.put("reports", b"<!doctype html><title>Report</title>")
    card = await upstream.blobs.put("reports", b"---\nlibrary_name: peft\n---\n")
    kept = {"report_page": page, "model_card": card, "exports": (form, form.model_copy(update={"fit": False}))}
    await upstream.publish(event.model_copy(update=kept))
    (listed,) = await eventually(lambda: adapters(domain))
    path = f"/v1/adapters/{listed['adapter_id']}"
    training = (await registry.client.get(path)).json()["training"]
    assert (training["report_page"]["sha256"], training["model_card"]["sha256"]) == (page.sha256, card.sha256)
    assert (training["objective"], [one["fit"] for one in training["exports"]]) == ("dpo", [True, False])
    manifest = (await registry.client.get(f"{path}/manifest")).json()
    assert manifest["specialized_for"] == ["intent-classifier", domain]
    assert manifest["performance_metrics"]["train_loss"] == 0.42
    assert manifest["training_data_size"] == event.dataset.samples
    assert [(one["kind"], one["fit"], one["same_token"]) for one in manifest["variants"]] == [
        ("int8", True, 0.99),
        ("int8", False, 0.99),
    ]
    shown = await registry.client.get(f"{path}/report", headers={"Accept": "text/html"})
    assert shown.text == "<!doctype html><title>Report</title>"
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert (await registry.client.get(f"{path}/report")).json()["train_loss"] == 0.42
    assert "peft" in (await registry.client.get(f"{path}/model-card")).text


@pytest.mark.requirement("LA-5.1")
@pytest.mark.requirement("LA-1.7")
async def test_a_good_score_approves_and_activates_and_the_next_version_takes_over(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    first = await registered(upstream, adapters, domain)
    await upstream.publish(upstream.scored(first, 91.5))
    found = await status(registry, first["adapter_id"], "approved")
    assert found["active"]
    assert found["decided_by"] == "automated-pipeline"
    assert found["metrics"]["llm_judge_score"] == 91.5
    assert found["metrics"]["pass_rate"] == 90
    second = await registered(upstream, adapters, domain, seed=2)
    assert second["version"] == "1.0.1"
    await upstream.publish(upstream.scored(second, 95, against=first["adapter_id"]))
    await status(registry, second["adapter_id"], "approved")
    active = {one["adapter_id"]: one["active"] for one in await adapters(domain)}
    assert active == {first["adapter_id"]: False, second["adapter_id"]: True}

    async def all_published() -> Any:
        events = await upstream.published(
            v1.AdapterRegistered, v1.Approved, v1.AdapterActivated, v1.AdapterDeactivated, domain=domain
        )
        return events if len(events) >= 7 else None

    events = await eventually(all_published)
    assert sorted(event.revision for event in events) == [1, 2, 3, 4, 5, 6, 7]
    by_revision = [type(event).__name__ for event in sorted(events, key=lambda event: event.revision)]
    assert by_revision == [
        "AdapterRegistered",
        "Approved",
        "AdapterActivated",
        "AdapterRegistered",
        "Approved",
        "AdapterDeactivated",
        "AdapterActivated",
    ]


@pytest.mark.requirement("LA-3.4")
async def test_a_criterion_that_fell_and_a_comparison_that_is_missing_go_to_a_human(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    first = await registered(upstream, adapters, domain)
    await upstream.publish(upstream.scored(first, 91.5))
    await status(registry, first["adapter_id"], "approved")
    worse, alone = [await registered(upstream, adapters, domain, seed=seed) for seed in (2, 3)]
    fell = v1.Comparison(
        compared_with=first["adapter_id"],
        evaluation_id="ev-old",
        samples=40,
        difference=0.7,
        ci_low=0.1,
        ci_high=1.3,
        criteria=(
            v1.CriterionChange(criterion="accuracy", difference=-2, chance=0.0005, fell=True),
            v1.CriterionChange(criterion="style", difference=0.9, chance=1),
        ),
    )
    await upstream.publish(upstream.scored(worse, 95, comparison=fell, regression=True))
    await upstream.publish(upstream.scored(alone, 95))

    async def requested() -> Any:
        found = await upstream.published(v1.ReviewRequested, domain=domain)
        return found if len(found) == 2 else None

    reasons = {review.adapter_id: review.reason for review in await eventually(requested)}
    assert "in accuracy (by 2.0 of 10)" in reasons[worse["adapter_id"]]
    assert f"not compared with {first['adapter_id']}" in reasons[alone["adapter_id"]]
    shown = (await registry.client.get(f"/v1/adapters/{worse['adapter_id']}")).json()["evaluation"]
    assert shown["comparison"]["fallen"] == {"accuracy": -2}
    assert (shown["decided"], shown["submission"]) == (40, 0)


async def test_a_request_s_own_threshold_sends_a_good_score_to_a_human(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    adapter = await registered(upstream, adapters, domain, auto_approve_threshold=95.0)
    await upstream.publish(upstream.scored(adapter, 90))

    async def requested() -> Any:
        return await upstream.published(v1.ReviewRequested, domain=domain)

    (review,) = await eventually(requested)
    assert "95" in review.reason


@pytest.mark.parametrize("fault", ["revision", "digest", "rank", "configuration", "swapped", "not arrow", "export"])
async def test_a_training_that_cannot_serve_is_refused_visibly(
    registry: RunningService, upstream: Upstream, domain: str, adapters: Get, fault: str
) -> None:
    event = await upstream.trained(domain)
    wrong = hashlib.sha256(b"wrong").hexdigest()
    match fault:
        case "revision":
            base = v1.BaseModel(name=upstream.base_name, revision=wrong)
            field, event = "base_model.revision", event.model_copy(update={"base_model": base})
        case "digest":
            blob = event.artifact.blob.model_copy(update={"sha256": wrong})
            artifact = event.artifact.model_copy(update={"blob": blob})
            field, event = "artifact.blob.sha256", event.model_copy(update={"artifact": artifact})
        case "rank":
            artifact = event.artifact.model_copy(update={"rank": 8})
            field, event = "artifact.rank", event.model_copy(update={"artifact": artifact})
        case "configuration":
            field, event = "configuration_sha256", event.model_copy(update={"configuration": '{"rank": 5}'})
        case "swapped":
            other = await upstream.trained(domain, seed=7)
            field, event = "artifact", event.model_copy(update={"checkpoint": other.checkpoint})
        case "export":
            blob = event.artifact.blob.model_copy(update={"sha256": wrong})
            form = v1.Export(kind="int8", blob=blob, same_token=0.99, quality_threshold=0.98, fit=True)
            field, event = "exports.0.blob.sha256", event.model_copy(update={"exports": (form,)})
        case _:
            blob = await upstream.blobs.put("artifacts", b"no arrow file at all")
            artifact = event.artifact.model_copy(update={"blob": blob})
            field, event = "artifact.arrow", event.model_copy(update={"artifact": artifact})
    await upstream.publish(event)

    async def refused() -> Any:
        return (await registry.client.get("/v1/refusals", params={"domain": domain})).json()["refusals"]

    (refusal,) = await eventually(refused)
    assert (refusal["job_id"], refusal["field"]) == (event.job_id, field)

    async def dead() -> Any:
        return any(refusal["reason"][:60] in each for each in await upstream.dead_reasons())

    await eventually(dead)
    assert await adapters(domain) == []


async def test_a_version_that_cannot_be_judged_is_put_before_a_human(
    registry: RunningService, upstream: Upstream, adapters: Get, domain: str
) -> None:
    adapter = await registered(upstream, adapters, domain)
    failed = v1.EvaluationFailed(
        evaluation_id=f"ev-{domain}", adapter_id=adapter["adapter_id"], domain=domain, reason="no golden data set"
    )
    await upstream.publish(failed)

    async def requested() -> Any:
        return await upstream.published(v1.ReviewRequested, domain=domain)

    (review,) = await eventually(requested)
    assert review.reason == f"evaluation ev-{domain} failed: no golden data set"
    assert review.score is None
    found = (await registry.client.get(f"/v1/adapters/{adapter['adapter_id']}")).json()
    assert found["status"] == "pending_review"
