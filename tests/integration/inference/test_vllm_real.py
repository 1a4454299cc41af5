"""The service on a real vLLM server, started on this machine's CPU. `make test-vllm`.

`LORAFLEET_VLLM_PYTHON` is the Python of an environment that has vLLM. Answers are held against transformers and PEFT.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_events import v1
from tests.conftest import RunningService, RunService
from tests.integration.inference.conftest import TOKENS, answered, chat, eventually, text_of

pytestmark = [pytest.mark.heavy, pytest.mark.requirement("AS-1.1"), pytest.mark.timeout(900)]

PYTHON = os.environ.get("LORAFLEET_VLLM_PYTHON", "")
SECONDS_TO_START = 300


class Vllm:
    """A vLLM server as a process."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "--served-model-name": "tiny",
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--dtype": "float32",
            "--max-loras": "3",
            "--max-cpu-loras": "5",
            "--max-lora-rank": "8",
            "--max-model-len": "512",
        }
        arguments = [part for option in options.items() for part in option]
        env = os.environ | {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }
        command = [PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", str(self._model), *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--enable-lora", "--enforce-eager"],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def kill(self) -> None:
        """With the processes that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def adapters(self) -> list[str]:
        served = httpx.get(f"{self.url}/v1/models").json()["data"]
        return [one["id"] for one in served if one["parent"]]

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def vllm(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    assert PYTHON, "run `make test-vllm`"
    server = Vllm(tiny_model, tmp_path_factory.mktemp("vllm") / "log")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
async def inference(
    run_service: RunService, settings_of_inference: dict[str, str], vllm: Vllm
) -> AsyncIterator[RunningService]:
    changes = {
        "LORAFLEET_VLLM_SERVERS": json.dumps([vllm.url]),
        "LORAFLEET_VLLM_MAX_ADAPTERS": "4",
        "LORAFLEET_VLLM_RECONCILE": "1",
    }
    async with run_service("inference", **settings_of_inference, **changes) as running:
        yield running


def name_of(adapter: v1.Adapter) -> str:
    return f"{adapter.adapter_id}@{adapter.artifact.blob.sha256[:12]}"


async def test_base_model_and_adapters_answer_as_transformers_and_peft_do(
    inference: Any, vllm: Vllm, registry: Any, make_adapter: Any, expected: Any, peft_probe: Any, domain: str
) -> None:
    assert text_of(await answered(inference.client, "tiny")) == expected()
    # More than fit into the server's slots at once.
    for seed in (31, 32, 33):
        made = make_adapter(seed=seed)
        adapter = await registry.describe(made, f"{domain}{seed}", probe=peft_probe(made))
        await registry.activate(adapter)
        body = await answered(inference.client, adapter.adapter_id)
        assert text_of(body) == expected(made) != expected()
        assert body["usage"]["completion_tokens"] == TOKENS
        assert name_of(adapter) in vllm.adapters
    loaded = [one for one in await registry.published(v1.AdapterLoaded) if one.domain.startswith(domain)]
    assert len(loaded) == 3
    print("load and proof, ms:", [round(one.load_ms) for one in loaded])


async def test_base_model_and_adapters_share_batches_and_each_answers_with_its_own_weights(
    inference: Any, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made = {}
    for seed in (40, 41, 42):
        adapter = await registry.describe(make_adapter(seed=seed), f"{domain}{seed}")
        await registry.activate(adapter)
        await answered(inference.client, adapter.adapter_id)
        made[adapter.adapter_id] = make_adapter(seed=seed)
    right = {"tiny": expected(), **{name: expected(one) for name, one in made.items()}}
    names = [*right] * 6
    bodies = await asyncio.gather(*(answered(inference.client, name) for name in names))
    assert [text_of(body) for body in bodies] == [right[name] for name in names]


async def test_an_adapter_with_another_effect_than_recorded_or_of_too_large_a_rank_is_refused(
    inference: Any, vllm: Vllm, registry: Any, make_adapter: Any, peft_probe: Any, domain: str
) -> None:
    other = await registry.describe(make_adapter(seed=34), f"{domain}a", probe=peft_probe(make_adapter(seed=35)))
    large = await registry.describe(make_adapter(seed=36, rank=16), f"{domain}b")
    for adapter, code in ((other, "effect_differs"), (large, "artifact_invalid")):
        await registry.activate(adapter)

        async def refused(adapter: v1.Adapter = adapter) -> Any:
            response = await chat(inference.client, adapter.adapter_id)
            return response if response.status_code == 422 else None

        assert (await eventually(refused)).json()["error"]["code"] == code
        assert name_of(adapter) not in vllm.adapters


async def test_an_answer_is_streamed_with_its_log_probabilities_and_its_prompt_is_scored(
    inference: Any, registry: Any, make_adapter: Any, tiny_model: Path, domain: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made, ids = make_adapter(seed=37), [10, 200, 3000, 40]
    adapter = await registry.describe(made, domain)
    await registry.activate(adapter)
    await answered(inference.client, adapter.adapter_id)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), made.peft)
    with torch.inference_mode():
        whole = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=4, do_sample=False, pad_token_id=2)[0]
        logprobs = model(input_ids=whole[None]).logits[0].log_softmax(-1)
    body = {"model": adapter.adapter_id, "prompt": ids, "max_tokens": 4, "temperature": 0, "echo": True, "logprobs": 0}
    response = await inference.client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    got = response.json()["choices"][0]["logprobs"]["token_logprobs"]
    assert got[1:] == pytest.approx([float(logprobs[at, one]) for at, one in enumerate(whole[1:])], abs=2e-3)


async def test_a_killed_server_gets_its_adapters_back_and_loses_those_that_are_deactivated(
    inference: Any, vllm: Vllm, registry: Any, make_adapter: Any, expected: Any, domain: str
) -> None:
    made, left = make_adapter(seed=38), make_adapter(seed=39)
    adapter, gone = await registry.describe(made, f"{domain}a"), await registry.describe(left, f"{domain}b")
    for one, of in ((adapter, made), (gone, left)):
        await registry.activate(one)
        assert text_of(await answered(inference.client, one.adapter_id)) == expected(of)
    vllm.kill()
    assert (await chat(inference.client, adapter.adapter_id)).status_code == 503
    vllm.start()
    assert text_of(await answered(inference.client, adapter.adapter_id)) == expected(made)
    await registry.deactivate(gone)

    async def unloaded() -> bool:
        return name_of(adapter) in vllm.adapters and name_of(gone) not in vllm.adapters

    await eventually(unloaded)
