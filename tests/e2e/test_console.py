"""The console on the whole fleet, in a real browser: `make test-console`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import gate_world
from fleet_cli.stack import Fleet
from fleet_events import v1
from fleet_kit.cloudevents import seal
from fleet_kit.dead_letter_writer import store_refused

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]
ENVIRONMENT = Path(os.environ.get("LORAFLEET_CONSOLE_TESTS", ".venv-console"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DOMAIN = "harbour"
DRIVER = Path(__file__).parents[1] / "console" / "browser.py"


async def seed(fleet: Fleet) -> None:
    """Samples, a golden data set, and a policy under which a person decides."""
    facts = dict(list(gate_world.FACTS.items())[:4])
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    url = {name: service.url for name, service in fleet.info.services.items()}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        policy = {"approve_at": 100, "reject_below": 0}
        (await client.put(f"{url['registry']}/v1/policies/{DOMAIN}", json=policy)).raise_for_status()
        samples = "\n".join(json.dumps({"prompt": p, "completion": c}) for p, c in gate_world.pairs(facts))
        body = {"params": {"domain": DOMAIN}, "content": samples, "headers": {"content-type": "application/x-ndjson"}}
        (await client.post(f"{url['trainer']}/v1/samples", **body)).raise_for_status()
        made = await client.post(
            f"{url['evaluator']}/v1/golden", json={"dataset_id": f"{DOMAIN}-golden", "domain": DOMAIN}
        )
        made.raise_for_status()
        golden = [one for one in gate_world.golden() if one["sample_id"] in {f"g{n}-0" for n in range(4)}]
        lines = "\n".join(json.dumps(one) for one in golden)
        (await client.post(f"{url['evaluator']}/v1/golden/{DOMAIN}-golden/samples", content=lines)).raise_for_status()


async def bury(fleet: Fleet) -> None:
    """An event of the registry that no stream took."""
    event = v1.UpdateRecommended(family=f"{DOMAIN}-lora", domain=DOMAIN, running="a", available="b")
    client = await fleet.connect_nats("registry")
    try:
        sealed = seal(event, service="registry", entity=event.family, trace={})
        await store_refused(client.jetstream(), "registry", sealed, "the stream was gone")
    finally:
        await client.close()


@pytest.fixture(scope="module")
async def saw(fleet: Fleet) -> dict[str, Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    if not (ENVIRONMENT / ".ready").exists():
        pytest.skip("needs playwright and axe-core: run `make test-console`")
    await seed(fleet)
    await bury(fleet)
    issuer = fleet.credentials.issuer
    hour = timedelta(hours=1)
    scopes = (
        "adapters:read",
        "adapters:write",
        "adapters:approve",
        "train",
        "generate",
        "feedback",
        "admin",
        "metrics",
    )
    assert fleet.info.base_model is not None
    variables = {
        "BASE_URL": fleet.info.services["console"].url,
        "TOKEN": issuer.mint("ann", scopes, ("*",), hour),
        "OTHER_TOKEN": issuer.mint("ben", scopes, ("elsewhere",), hour),
        "DOMAIN": DOMAIN,
        "BASE_MODEL": fleet.info.base_model.name,
        "CHROMIUM": CHROMIUM,
        "AXE": str(ENVIRONMENT / "node_modules" / "axe-core" / "axe.min.js"),
    }
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SHOTS") if name in os.environ}
    done = await asyncio.to_thread(
        subprocess.run,
        [str(ENVIRONMENT / "bin" / "python"), str(DRIVER)],
        env={**keep, **variables},
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=2))
    return result


async def test_a_training_is_requested_by_form_refused_by_field_and_watched_live(saw: dict[str, Any]) -> None:
    assert saw["refused field"] == "domain"
    assert "domain" in saw["refusal"]
    assert saw["watched without a reload"] is True
    assert saw["last step"] == "10"
    assert saw["plots"] == 4


async def test_a_candidate_is_approved_by_keyboard_after_its_samples_were_read_worst_first(saw: dict[str, Any]) -> None:
    assert saw["focused sample"] == "sample-1"
    assert saw["worst first"] == sorted(saw["worst first"])
    assert "ACTIVE" in saw["approved"].upper()


async def test_two_versions_are_compared(saw: dict[str, Any]) -> None:
    assert saw["compared"].endswith("v1.0.0")
    assert saw["measures"] == 1


async def test_answers_stand_side_by_side_with_their_provenance_and_are_rated(saw: dict[str, Any]) -> None:
    assert saw["answers"] == 2
    assert any(f"{DOMAIN}-lora-v1.0.0 · " in one for one in saw["provenance"])
    assert saw["hover"].endswith(" %")
    assert saw["rated"] == "recorded"


async def test_an_event_comes_into_an_open_page(saw: dict[str, Any]) -> None:
    assert DOMAIN in saw["live"]


async def test_another_domain_is_not_shown(saw: dict[str, Any]) -> None:
    assert saw["another domain"] == "Refused by a service"
    assert saw["another domain lists"] is False


async def test_axe_finds_nothing_on_any_page_light_or_dark_wide_or_narrow(saw: dict[str, Any]) -> None:
    assert saw["axe"] == {}
    assert saw["axe, dark and narrow"] == {}
    assert saw["too wide at 360 px"] == []


async def test_no_page_is_scrolled_sideways_at_twice_the_size_nor_moves_for_those_who_want_none(
    saw: dict[str, Any],
) -> None:
    assert saw["too wide at 200 %"] == []
    assert saw["moving"] == 0


async def test_the_base_model_answers_a_samples_question_beside_the_candidate(saw: dict[str, Any]) -> None:
    assert saw["base model"].startswith("Base model")


async def test_samples_of_two_versions_stand_side_by_side(saw: dict[str, Any]) -> None:
    assert saw["samples compared"] == 4


async def test_a_version_shows_its_curves_forms_and_data(saw: dict[str, Any]) -> None:
    assert saw["curves"] == 4
    assert saw["forms"] >= 1
    assert saw["records"] >= 1


async def test_health_shows_slots_queue_and_memory_pressure(saw: dict[str, Any]) -> None:
    for what in ("slots (", "answers (", "memory pressure: ", "in the outbox"):
        assert what in saw["figures"], saw["figures"]


async def test_a_dead_letter_is_replayed_by_keyboard(saw: dict[str, Any]) -> None:
    assert saw["letter"].startswith("UpdateRecommended")
    assert "has taken effect" in saw["replayed"]
    assert saw["letters left"] == 0


async def test_an_event_leads_to_its_trace(saw: dict[str, Any]) -> None:
    assert saw["trace"] >= 2


async def test_no_page_reports_an_error(saw: dict[str, Any]) -> None:
    assert saw["faults"] == []
