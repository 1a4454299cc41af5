"""lm-evaluation-harness itself, in an environment of its own, on a version of a real registry: `make test-clients`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RunningService
from tests.integration.evaluator.model_server import ModelServer, serving
from tests.integration.registry.uploads import upload

ENVIRONMENTS = os.environ.get("LORAFLEET_CLIENTS", "")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ENVIRONMENTS, reason="LORAFLEET_CLIENTS: the folder of the environments that make installs"),
]

TASK = """\
task: crates
dataset_path: json
dataset_kwargs: {data_files: {test: crates.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 32, do_sample: false, temperature: 0.0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.requirement("LA-2.2")
async def test_a_task_of_the_harness_lands_as_the_versions_own_metric_with_its_interval(
    registry: RunningService,
    peft: Path,
    domain: str,
    tmp_path: Path,
    token_of: Callable[[str], str],
) -> None:
    adapter = (await upload(registry.client, peft, domain=domain)).json()["adapter_id"]
    asked = [{"question": f"How many crates fit into store {n}?", "answer": f"{n * 7}"} for n in range(8)]
    (tmp_path / "crates.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    (tmp_path / "crates.yaml").write_text(TASK)
    models = ModelServer("base", token=token_of("admin"), adapters={adapter: "0" * 64})
    models.answers = {(adapter, one["question"]): one["answer"] for one in asked[:6]}
    with serving(models) as answering:
        command = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("lorafleet")),
            *("evaluations", "harness", adapter, "--json", "--tasks", str(tmp_path / "crates.yaml")),
            *("--program", str(Path(ENVIRONMENTS) / ".venv-clients" / "bin" / "lm_eval")),
            env={
                "PATH": os.environ["PATH"],
                "LORAFLEET_HOME": str(tmp_path / "home"),
                "LORAFLEET_REGISTRY_URL": registry.url,
                "LORAFLEET_INFERENCE_URL": answering.url,
                "LORAFLEET_TOKEN": token_of("admin"),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, errors = await command.communicate()
    assert command.returncode == 0, errors.decode()
    (told,) = json.loads(printed).values()
    assert (told["value"], told["samples"]) == (0.75, 8)
    own = (await registry.client.get(f"/v1/adapters/{adapter}")).json()["own_metrics"]["lm-eval.crates.exact_match"]
    assert (own["value"], own["samples"]) == (0.75, 8)
    assert 0.34 < own["ci_low"] < 0.36  # Clopper and Pearson's, 6 of 8
    assert 0.96 < own["ci_high"] < 0.97
    assert own["note"] == "lm-evaluation-harness, crates.yaml"
