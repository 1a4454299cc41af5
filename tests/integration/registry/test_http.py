"""The registry's HTTP surface: uploads, decisions, policies, and who may see what."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fleet_events import v1
from lora_core import LoRACard, LoRAFormat, LoRAWeights
from lora_core.interop import to_peft
from tests.conftest import Mint, RunningService
from tests.integration.registry.conftest import UNJUDGED, Get, Upstream, card, eventually, permit_unjudged

pytestmark = pytest.mark.integration

Files = list[tuple[str, tuple[str, bytes, str]]]


def files_of(folder: Path) -> Files:
    return [
        ("files", (file.name, file.read_bytes(), "application/octet-stream"))
        for file in sorted(folder.iterdir())
        if file.is_file()
    ]


@pytest.fixture
def peft(upstream: Upstream, tmp_path: Path) -> Path:
    """A PEFT folder that serves."""
    to_peft(card(upstream.shapes), tmp_path / "peft")
    return tmp_path / "peft"


async def upload(client: httpx.AsyncClient, folder: Path, **fields: str) -> httpx.Response:
    return await client.post("/v1/adapters", data=fields, files=files_of(folder))


@pytest.mark.requirement("AM-1.1")
async def test_a_peft_folder_is_registered_with_a_unique_id_and_its_metadata(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str, tmp_path: Path
) -> None:
    answer = await upload(registry.client, peft, domain=domain, version="1.2.3", description="by hand")
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["adapter_id"] == f"{domain}-lora-v1.2.3"
    assert answer.headers["location"] == f"/v1/adapters/{domain}-lora-v1.2.3"
    assert (found["rank"], found["alpha"], found["target_modules"]) == (4, 8.0, ["q_proj"])
    assert found["base_model"]["revision"] == upstream.revision
    assert (found["description"], found["status"], found["training"]) == ("by hand", "pending_review", None)
    stored = await upstream.blobs.fetch(v1.Blob(**found["artifact"]), tmp_path / "back")
    again = LoRAFormat.load(stored)
    original = card(upstream.shapes)
    for module, weights in original.weights.items():
        np.testing.assert_array_equal(again.weights[module].a, weights.a)
        np.testing.assert_array_equal(again.weights[module].b, weights.b)
    (event,) = await eventually(lambda: upstream.published(v1.AdapterRegistered, domain=domain))
    assert event.adapter.artifact.blob.sha256 == found["artifact_sha256"]


@pytest.mark.requirement("AM-1.3")
@pytest.mark.requirement("LA-1.1")
async def test_a_duplicate_version_is_refused_with_the_next_version_suggested(
    registry: RunningService, peft: Path, domain: str
) -> None:
    await upload(registry.client, peft, domain=domain, version="1.4.1")
    answer = await upload(registry.client, peft, domain=domain, version="1.4.1")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["field"], problem["next_version"]) == ("version", "1.4.2")
    assert "1.4.2" in problem["detail"]
    retried = await upload(registry.client, peft, domain=domain, version=problem["next_version"])
    assert retried.status_code == 201
    computed = await upload(registry.client, peft, domain=domain)
    assert computed.json()["version"] == "1.4.3"


@pytest.mark.requirement("LA-1.2")
async def test_an_upload_s_bump_is_honoured(registry: RunningService, peft: Path, domain: str) -> None:
    versions = [
        (await upload(registry.client, peft, domain=domain, **fields)).json()["version"]
        for fields in ({}, {"bump": "minor"}, {}, {"bump": "major"})
    ]
    assert versions == ["1.0.0", "1.1.0", "1.1.1", "2.0.0"]


def _config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _weights(folder: Path, upstream: Upstream, change: Callable[[str, LoRAWeights], tuple[str, LoRAWeights]]) -> None:
    good = card(upstream.shapes)
    weights = dict(change(module, pair) for module, pair in good.weights.items())
    to_peft(LoRACard("test", 4, 8.0, ("q_proj",), weights), folder)


def _spoil(fault: str, folder: Path, upstream: Upstream) -> None:
    weights = folder / "adapter_model.safetensors"
    match fault:
        case "not safetensors":
            weights.write_bytes(b"not safetensors at all")
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "pickle":
            weights.rename(folder / "adapter_model.bin")
        case "no weights":
            weights.unlink()
        case "no config":
            (folder / "adapter_config.json").unlink()
        case "config is no json":
            (folder / "adapter_config.json").write_text("{")
        case "alpha of 4,000 digits":
            config = (folder / "adapter_config.json").read_text()
            (folder / "adapter_config.json").write_text(
                config.replace('"lora_alpha": 8', f'"lora_alpha": {"9" * 4000}')
            )
        case "header of 20 MB":
            header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' + b" " * (20 << 20) + b"}"
            weights.write_bytes(len(header).to_bytes(8, "little") + header)
        case "other peft type":
            _config(folder, peft_type="IA3")
        case "dora":
            _config(folder, use_dora=True)
        case "rank differs":
            _config(folder, r=8)
        case "alpha zero":
            _config(folder, lora_alpha=0)
        case "alpha is text":
            _config(folder, lora_alpha="eight")
        case "nan":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a * np.float32("nan"), w.b)))
        case "infinity":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a, w.b + np.float32("inf"))))
        case "zero delta":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a, w.b * 0)))
        case "unknown module":
            _weights(folder, upstream, lambda m, w: (m.replace("q_proj", "z_proj"), w))
        case "other model's shape":
            _weights(folder, upstream, lambda m, w: (m, LoRAWeights(w.a[:, :-1].copy(), w.b)))


@pytest.mark.requirement("AM-1.1")
@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ("not safetensors", "adapter_model.safetensors"),
        ("truncated", "adapter_model.safetensors"),
        ("pickle", "files"),
        ("no weights", "files"),
        ("no config", "files"),
        ("config is no json", "adapter_config.json"),
        ("alpha of 4,000 digits", "adapter_config.json"),
        ("header of 20 MB", "adapter_model.safetensors"),
        ("other peft type", "peft_type"),
        ("dora", "use_dora"),
        ("rank differs", "model.layers.0.self_attn.q_proj rank"),
        ("alpha zero", "alpha"),
        ("alpha is text", "lora_alpha"),
        ("nan", "model.layers.0.self_attn.q_proj a"),
        ("infinity", "model.layers.0.self_attn.q_proj b"),
        ("zero delta", "weights"),
        ("unknown module", "module"),
        ("other model's shape", "model.layers.0.self_attn.q_proj a shape"),
    ],
)
async def test_what_cannot_serve_is_refused_by_field_and_nothing_is_registered(
    registry: RunningService, upstream: Upstream, adapters: Get, peft: Path, domain: str, fault: str, field: str
) -> None:
    _spoil(fault, peft, upstream)
    answer = await upload(registry.client, peft, domain=domain)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.text
    assert await adapters(domain) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"domain": "Not A Domain"}, "domain"),
        ({"version": "1.2"}, "version"),
        ({"version": "v1.2.3"}, "version"),
        ({"method": "prefix-tuning"}, "method"),
        ({"bump": "huge"}, "bump"),
        ({"base_model": "gpt-17"}, "base_model.name"),
        ({"base_model_revision": "0" * 64}, "base_model.revision"),
        ({"base_model_revision": "short"}, "base_model_revision"),
        ({"colour": "blue"}, "colour"),
        ({"description": "a\x00b"}, "description"),
        ({"reason": "a\x00b"}, "reason"),
        ({"golden_dataset_id": "\x00"}, "golden_dataset_id"),
    ],
)
async def test_a_bad_field_is_named(
    registry: RunningService, peft: Path, domain: str, fields: dict[str, str], field: str
) -> None:
    answer = await upload(registry.client, peft, **({"domain": domain} | fields))
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.text


async def test_an_upload_over_the_bound_is_refused_before_it_arrives(
    registry: RunningService, run_service: Any, base_model: Path
) -> None:
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_MAX_ARTIFACT_BYTES": str(1 << 20)}
    async with run_service("registry", **bounds) as small:
        url = httpx.URL(small.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        # Without the body: a client that is still sending when the connection closes may miss the answer.
        writer.write(
            f"POST /v1/adapters HTTP/1.1\r\nHost: registry\r\nAuthorization: {small.client.headers['Authorization']}\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {16 << 20}\r\n\r\n".encode()
        )
        async with asyncio.timeout(10):
            status = await reader.readline()
        writer.close()
    assert b" 413 " in status, status


async def test_a_slow_pattern_of_one_caller_holds_up_nobody(
    registry: RunningService, upstream: Upstream, adapters: Get, peft: Path, domain: str
) -> None:
    """10 kB of `rank_pattern` that `re` searches with for ever; health is asked all the while."""
    patterns = {f"(a?){{25}}a{{25}}|(x+x+)+y{number}|(.*a){{20}}": 4 for number in range(60)}
    _config(peft, rank_pattern=patterns)
    uploading = asyncio.create_task(upload(registry.client, peft, domain=domain))
    slowest = 0.0
    while not uploading.done():
        asked = time.monotonic()
        assert (await registry.client.get("/healthz")).status_code == 200
        slowest = max(slowest, time.monotonic() - asked)
        await asyncio.sleep(0.02)
    answer = await uploading
    assert answer.status_code == 201, answer.text
    assert slowest < 2.0, slowest


async def test_the_quota_of_a_domain_ends_its_uploads_and_no_other_s(
    run_service: Any, base_model: Path, peft: Path, domain: str
) -> None:
    size = sum(len(content) for _, (_, content, _) in files_of(peft))
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_MAX_UPLOADED_BYTES": str(int(size * 3.5))}
    async with run_service("registry", **bounds) as small:
        assert (await upload(small.client, peft, domain=domain)).status_code == 201
        over = await upload(small.client, peft, domain=domain)
        assert (over.status_code, over.json()["field"]) == (413, "domain"), over.text
        assert (await upload(small.client, peft, domain=f"{domain}-b")).status_code == 201


async def test_uploads_at_once_beyond_the_bound_are_told_to_wait(
    run_service: Any, base_model: Path, peft: Path, domain: str
) -> None:
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_MAX_UPLOADS_AT_ONCE": "1"}
    async with run_service("registry", **bounds) as small:
        answers = await asyncio.gather(*(upload(small.client, peft, domain=domain) for _ in range(4)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses[0] == 201
        assert statuses[-1] == 429, statuses
        assert (await upload(small.client, peft, domain=domain)).status_code == 201


async def test_a_check_that_takes_too_long_is_ended_and_the_upload_refused(
    run_service: Any, base_model: Path, peft: Path, domain: str
) -> None:
    bounds = {"LORAFLEET_BASE_MODEL": str(base_model), "LORAFLEET_INSPECTION_SECONDS": "0.001"}
    async with run_service("registry", **bounds) as hasty:
        answer = await upload(hasty.client, peft, domain=domain)
        assert (answer.status_code, answer.json()["field"]) == (422, "files"), answer.text
        assert "took more than" in answer.json()["detail"]


async def test_a_body_that_is_no_form_is_refused(registry: RunningService) -> None:
    answer = await registry.client.post("/v1/adapters", json={"domain": "x"})
    assert answer.status_code == 415


@pytest.mark.requirement("AM-2.1")
@pytest.mark.requirement("AM-2.2")
@pytest.mark.requirement("LA-1.7")
async def test_versions_are_listed_by_domain_status_activity_and_base_model(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    ids = [(await upload(registry.client, peft, domain=domain)).json()["adapter_id"] for _ in range(3)]
    await permit_unjudged(registry, domain)
    await registry.client.post(f"/v1/adapters/{ids[0]}/approve", json=UNJUDGED)
    await registry.client.post(f"/v1/adapters/{ids[1]}/reject", json={"reason": "bad"})

    async def listed(**query: object) -> list[str]:
        answer = await registry.client.get("/v1/adapters", params={"domain": domain, **query})
        assert answer.status_code == 200, answer.text
        return [one["adapter_id"] for one in answer.json()["adapters"]]

    assert await listed() == ids[::-1]
    assert await listed(status="pending_review") == [ids[2]]
    assert await listed(status="rejected") == [ids[1]]
    assert await listed(active="true") == [ids[0]]
    assert await listed(active="false") == [ids[2], ids[1]]
    assert await listed(base_model=upstream.base_name) == ids[::-1]
    assert await listed(base_model=upstream.revision) == ids[::-1]
    assert await listed(base_model="another-model") == []
    first = (await registry.client.get("/v1/adapters", params={"domain": domain, "limit": 2})).json()
    assert [one["adapter_id"] for one in first["adapters"]] == ids[:0:-1]
    assert await listed(limit=2, before=first["next"]) == [ids[0]]
    wrong = await registry.client.get("/v1/adapters", params={"status": "great"})
    assert wrong.status_code == 422


@pytest.mark.requirement("LA-1.5")
async def test_humans_decide_and_the_audit_trail_says_who_when_why_before_and_after(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    first = (await upload(registry.client, peft, domain=domain)).json()
    name = first["adapter_id"]
    early = await registry.client.post(f"/v1/adapters/{name}/activate", json={})
    assert (early.status_code, early.json()["field"]) == (409, "status")
    await upstream.publish(upstream.scored(first, 80))

    async def scored() -> bool:
        return bool((await registry.client.get(f"/v1/adapters/{name}")).json()["evaluation"])

    await eventually(scored)
    for step, reason in (
        ("approve", "ten answers checked"),
        ("deactivate", "holiday"),
        ("activate", "back"),
        ("reject", "law repealed"),
    ):
        answer = await registry.client.post(f"/v1/adapters/{name}/{step}", json={"reason": reason})
        assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "rejected"
    for step in ("approve", "activate"):
        again = await registry.client.post(f"/v1/adapters/{name}/{step}", json={})
        assert again.status_code == 409
    entries = (await registry.client.get(f"/v1/adapters/{name}/audit")).json()["entries"]
    asked = entries.pop(1)
    assert (asked["action"], asked["actor"]) == ("review_requested", "automated-pipeline")
    assert [(entry["action"], entry["reason"]) for entry in entries] == [
        ("registered", "uploaded"),
        ("approved", "ten answers checked"),
        ("activated", "ten answers checked"),
        ("deactivated", "holiday"),
        ("activated", "back"),
        ("deactivated", "law repealed"),
        ("rejected", "law repealed"),
    ]
    assert {entry["actor"] for entry in entries} == {"admin"}
    assert entries[1]["before"] == {"status": "pending_review", "active": False}
    assert entries[2]["after"] == {"status": "approved", "active": True}
    assert [entry["revision"] for entry in entries] == [1, 3, 4, 5, 6, 7, 8]

    async def all_published() -> Any:
        events = await upstream.published(v1.AdapterActivated, v1.AdapterDeactivated, v1.Rejected, domain=domain)
        return events if len(events) == 5 else None

    events = await eventually(all_published)
    assert [type(event).__name__ for event in sorted(events, key=lambda event: event.revision)] == [
        "AdapterActivated",
        "AdapterDeactivated",
        "AdapterActivated",
        "AdapterDeactivated",
        "Rejected",
    ]


@pytest.mark.requirement("LA-5.1")
async def test_a_domain_s_policy_is_set_audited_and_obeyed(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    default = (await registry.client.get(f"/v1/policies/{domain}")).json()
    assert (default["mode"], default["approve_at"], default["reject_below"]) == ("confident", 85, 70)
    assert (default["minimum_samples"], default["smallest_relevant_difference"]) == (20, 2)
    named = await registry.client.put(f"/v1/policies/{domain}", json={"blocking_criteria": ["humour"]})
    assert (named.status_code, named.json()["field"]) == (422, "blocking_criteria")
    wrong = await registry.client.put(f"/v1/policies/{domain}", json={"approve_at": 60})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "reject_below")
    unknown = await registry.client.put(f"/v1/policies/{domain}", json={"aprove_at": 60})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "aprove_at")
    strict = {"mode": "confident", "approve_at": 90, "reject_below": 50, "activate_on_approval": False}
    assert (await registry.client.put(f"/v1/policies/{domain}", json=strict)).status_code == 200
    audit = (await registry.client.get(f"/v1/policies/{domain}/audit")).json()["entries"]
    assert (audit[0]["before"]["approve_at"], audit[0]["after"]["approve_at"]) == (85, 90)
    first, second = [(await upload(registry.client, peft, domain=domain)).json() for _ in range(2)]
    await upstream.publish(upstream.scored(first, 92))  # interval 89 to 95: not wholly above 90
    await upstream.publish(upstream.scored(second, 96))

    async def decided() -> Any:
        found = [(await registry.client.get(f"/v1/adapters/{one['adapter_id']}")).json() for one in (first, second)]
        return found if all(one["evaluation"] for one in found) else None

    one, two = await eventually(decided)
    assert one["status"] == "pending_review"
    assert (two["status"], two["active"]) == ("approved", False)


@pytest.mark.requirement("LA-5.1")
async def test_scores_of_a_judge_that_disagrees_with_people_wait_for_a_human(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    policy = {"mode": "confident", "minimum_agreement": 0.6, "activate_on_approval": False}
    assert (await registry.client.put(f"/v1/policies/{domain}", json=policy)).status_code == 200
    agreeing, disagreeing, unknown = [(await upload(registry.client, peft, domain=domain)).json() for _ in range(3)]
    good, poor = (v1.Agreement(answers=40, alpha=0.8, ci_low=low, ci_high=0.9) for low in (0.7, 0.3))
    await upstream.publish(upstream.scored(agreeing, 96, agreement=good))
    await upstream.publish(upstream.scored(disagreeing, 96, agreement=poor))
    await upstream.publish(upstream.scored(unknown, 96))

    async def decided() -> Any:
        found = [
            (await registry.client.get(f"/v1/adapters/{one['adapter_id']}")).json()
            for one in (agreeing, disagreeing, unknown)
        ]
        return found if all(one["evaluation"] for one in found) else None

    found = await eventually(decided)
    assert [one["status"] for one in found] == ["approved", "pending_review", "pending_review"]
    asked = await eventually(lambda: upstream.published(v1.ReviewRequested, domain=domain))
    reasons = {event.adapter_id: event.reason for event in asked}
    assert "below the policy's minimum of 0.6" in reasons[disagreeing["adapter_id"]]


@pytest.mark.requirement("LA-1.5")
async def test_an_approval_without_an_evaluation_is_express_permitted_by_the_policy_and_audited_with_its_reason(
    registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    name = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]

    async def approve(**body: object) -> tuple[int, Any]:
        answer = await registry.client.post(f"/v1/adapters/{name}/approve", json=body)
        return answer.status_code, answer.json()

    status, silent = await approve(reason="looks fine")
    assert (status, silent["field"]) == (409, "without_evaluation")
    assert "has no evaluation" in silent["detail"]
    status, unexplained = await approve(without_evaluation=True, reason=" ")
    assert (status, unexplained["field"]) == (422, "reason")
    status, forbidden = await approve(**UNJUDGED)
    assert (status, forbidden["field"]) == (409, "without_evaluation")
    assert "allow_approval_without_evaluation" in forbidden["detail"]
    await permit_unjudged(registry, domain)
    assert (await approve(reason="looks fine"))[1]["field"] == "without_evaluation", "it stays express"
    status, found = await approve(**UNJUDGED)
    assert (status, found["status"], found["active"]) == (200, "approved", True)
    entries = (await registry.client.get(f"/v1/adapters/{name}/audit")).json()["entries"]
    assert (entries[1]["action"], entries[1]["reason"]) == ("approved", UNJUDGED["reason"])
    assert entries[1]["after"] == {"status": "approved", "active": False, "without_evaluation": True}
    (event,) = await eventually(lambda: upstream.published(v1.Approved, domain=domain))
    assert (event.without_evaluation, event.reason, event.score) == (True, UNJUDGED["reason"], None)


async def test_one_s_own_work_is_not_approved_where_the_policy_forbids_it(
    registry: RunningService, mint: Mint, peft: Path, domain: str
) -> None:
    await permit_unjudged(registry, domain, forbid_own_approval=True)
    name = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]
    own = await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED)
    assert (own.status_code, own.json()["field"]) == (409, "status")
    other = {"Authorization": f"Bearer {mint(['adapters:approve'], [domain], subject='ben')}"}
    answer = await registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED, headers=other)
    assert (answer.status_code, answer.json()["decided_by"]) == (200, "ben")


async def test_a_caller_sees_and_changes_its_own_domains_alone(
    registry: RunningService, mint: Mint, peft: Path, domain: str
) -> None:
    name = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]
    scopes = ["adapters:read", "adapters:write", "adapters:approve", "admin"]
    outsider = {"Authorization": f"Bearer {mint(scopes, [f'not-{domain}'])}"}
    client = registry.client
    for path in ("", "/provenance", "/audit", "/evaluations", "/report"):
        assert (await client.get(f"/v1/adapters/{name}{path}", headers=outsider)).status_code == 404, path
    for step in ("approve", "reject", "activate", "deactivate"):
        answer = await client.post(f"/v1/adapters/{name}/{step}", json={}, headers=outsider)
        assert answer.status_code == 404, step
    absent = await client.get("/v1/adapters/nobody-lora-v1.0.0", headers=outsider)
    hidden = await client.get(f"/v1/adapters/{name}", headers=outsider)
    assert absent.json()["detail"].replace("nobody-lora-v1.0.0", "X") == hidden.json()["detail"].replace(name, "X")
    assert (await client.get("/v1/adapters", params={"domain": domain}, headers=outsider)).status_code == 403
    assert (await client.get("/v1/adapters", headers=outsider)).json()["adapters"] == []
    assert (await client.get("/v1/refusals", params={"domain": domain}, headers=outsider)).status_code == 403
    assert (await client.get("/v1/statistics", headers=outsider)).json()["domains"] == []
    assert (await client.get(f"/v1/policies/{domain}", headers=outsider)).status_code == 403
    assert (await client.get(f"/v1/policies/{domain}/audit", headers=outsider)).status_code == 403
    assert (await client.put(f"/v1/policies/{domain}", json={}, headers=outsider)).status_code == 403
    sent = await client.post("/v1/adapters", data={"domain": domain}, files=files_of(peft), headers=outsider)
    assert sent.status_code == 403
    insider = {"Authorization": f"Bearer {mint(['adapters:read'], [domain])}"}
    assert (await client.get(f"/v1/adapters/{name}", headers=insider)).json()["status"] == "pending_review"
    assert (await client.post(f"/v1/adapters/{name}/approve", json={}, headers=insider)).status_code == 403
    assert (await client.post(f"/v1/adapters/{name}/activate", json={}, headers=insider)).status_code == 403
    nobody = httpx.AsyncClient(base_url=registry.url)
    async with nobody:
        assert (await nobody.get("/v1/adapters")).status_code == 401


async def test_uploads_at_once_get_a_version_each(registry: RunningService, peft: Path, domain: str) -> None:
    import asyncio

    answers = await asyncio.gather(*(upload(registry.client, peft, domain=domain) for _ in range(4)))
    assert sorted(answer.json()["version"] for answer in answers) == ["1.0.0", "1.0.1", "1.0.2", "1.0.3"]


async def test_approvals_at_once_leave_one_version_active(registry: RunningService, peft: Path, domain: str) -> None:
    import asyncio

    names = [(await upload(registry.client, peft, domain=domain)).json()["adapter_id"] for _ in range(4)]
    await permit_unjudged(registry, domain)
    answers = await asyncio.gather(
        *(registry.client.post(f"/v1/adapters/{name}/approve", json=UNJUDGED) for name in names)
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    found = (await registry.client.get("/v1/adapters", params={"domain": domain, "active": "true"})).json()["adapters"]
    assert [one["adapter_id"] for one in found] == [names[-1]]
