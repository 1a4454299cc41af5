"""The closed loop: what users correct is trained, judged and promoted without a person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_events import v1

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RULES = {
    "new_samples": {"at_least": 4},
    "cooldown_hours": 0,
    "training": {"hyperparameters": {"max_steps": 2, "batch_size": 4, "learning_rate": 2e-3}},
}


@pytest.mark.heavy
@pytest.mark.requirement("LA-4.3")
async def test_new_samples_become_the_next_version_and_every_step_tells_why(new_loop) -> None:
    async with new_loop("tern-bay") as loop:
        await loop.request()
        await loop.finished_once()
        training = {**RULES["training"], "golden_dataset_id": loop.golden_id}
        rules = {**RULES, "training": training}
        answer = await loop.http.put(loop.url("trainer", f"/v1/retraining/{loop.domain}"), json=rules)
        assert answer.status_code == 200, answer.text
        await _correct(loop, 4)

        async def promoted() -> bool:
            versions = (await loop.get("registry", f"/v1/adapters?domain={loop.domain}"))["adapters"]
            return any(one["active"] and one["adapter_id"] != loop.adapter_id for one in versions)

        await loop.until(promoted, 400)
        fired = await loop.get("trainer", f"/v1/retraining/{loop.domain}/firings")
        (firing,) = fired["firings"]
        assert (firing["state"], firing["triggers"], firing["active_adapter"]) == (
            "succeeded",
            ["new_samples"],
            loop.adapter_id,
        )
        requested = [one for one in await loop.events(v1.TrainingRequested) if one.triggers]
        (completed,) = [one for one in await loop.events(v1.TrainingCompleted) if one.reason]
        assert [(one.job_id, one.reason) for one in requested] == [(firing["job_id"], firing["reason"])]
        assert (completed.job_id, completed.continued_from) == (firing["job_id"], loop.adapter_id)
        new = (await loop.events(v1.AdapterActivated))[-1].adapter.adapter_id
        chain = await loop.get("registry", f"/v1/adapters/{new}/provenance")
        assert chain["configuration"]["reason"] == firing["reason"]
        trail = await loop.get("registry", f"/v1/adapters/{new}/audit")
        assert firing["reason"] in json.dumps(trail, ensure_ascii=False)


async def _correct(loop, count: int) -> None:
    """Users get answers and correct them, by the answers' ids alone, until so many corrections are used."""
    at = loop.url("registry", f"/v1/policies/{loop.domain}")
    policy = await loop.get("registry", f"/v1/policies/{loop.domain}")
    (await loop.http.put(at, json=policy | {"record_answers": "rated"})).raise_for_status()
    number = 0

    async def used() -> bool:  # the first answers may be given before inference knows the policy
        nonlocal number
        number += 1
        answer = (await loop.ask(loop.family, f"bell {number}")).json()
        given = {"generation_id": answer["id"], "rating": 1, "correction": f"The pilot rings bell {number}."}
        (await loop.http.post(loop.url("inference", "/v1/feedback"), json=given)).raise_for_status()
        return len((await loop.get("trainer", f"/v1/feedback?domain={loop.domain}&state=used"))["feedback"]) >= count

    await loop.until(used, 120)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_the_demo_closes_a_gap_in_an_adapters_knowledge(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fleet_cli.app", "demo-loop", "--json", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=7000, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout.strip().splitlines()[-1])
    gap, known = shown["figures"]["the gap"], shown["figures"]["what it knew"]
    assert gap["after"] > gap["before"]
    assert gap["win_rate"] > 0.5
    assert known["after"] > 0.8 * known["before"]
