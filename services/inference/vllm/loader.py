"""Takes an adapter from the object store onto vLLM servers, and proves its effect there."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fleet_events.v1 import Adapter
from fleet_events.v1 import Probe as RecordedProbe
from lora_core import LoRACard, LoRAWeights
from lora_core.interop import to_peft
from services.inference.loading.artifact import Artifacts
from services.inference.loading.proof import Exactness, is_compared, probe_ids, recorded_probe
from services.inference.slots.states import LoadFailed, OnDisk, Proof
from services.inference.tokenizer import Vocabulary
from services.inference.vllm.client import VllmClient
from services.inference.vllm.fleet import Placed, VllmFleet, served_name

TOP = 20
"""Log-probabilities requested with a probe: what a vLLM server gives at most by default (--max-logprobs)."""


class VllmLoader:
    """The `Loader` of vLLM servers: object store → disk cache → PEFT folder → servers → proof.

    folder: where the servers read adapters, under the same path as here.
    """

    def __init__(self, *, artifacts: Artifacts, fleet: VllmFleet, folder: Path) -> None:
        self._artifacts = artifacts
        self._fleet = fleet
        self._folder = folder

    async def fetch(self, adapter: Adapter) -> OnDisk:
        """The artifact on disk, its digest checked."""
        return OnDisk(await self._artifacts.fetch(adapter), 1)

    async def load(self, adapter: Adapter, file: OnDisk) -> Proof:
        """Writes the PEFT form, loads it on its servers and proves its effect; it is nowhere if that fails."""
        card = await self._artifacts.open(adapter, file.path)
        folder = self._folder / served_name(adapter)
        await asyncio.to_thread(write_peft, card, folder)
        return await self._fleet.put(Placed(adapter, folder, len(card.weights)))

    async def unload(self, adapter_id: str) -> None:
        """Unloads it everywhere."""
        await self._fleet.remove(adapter_id)


class VllmProof:
    """Shows by log-probabilities that an adapter on a server has its effect. `base_name`: what to ask without it."""

    def __init__(self, vocabulary: Vocabulary, base_name: str, exactness: Exactness) -> None:
        self._vocabulary = vocabulary
        self._base_name = base_name
        self._exactness = exactness

    async def __call__(self, client: VllmClient, placed: Placed) -> Proof:
        """The proof; its `max_delta` is of log-probabilities. Raises LoadFailed and what the client raises."""
        adapter = placed.adapter
        ids = probe_ids(adapter, self._vocabulary)
        with_adapter, without = await asyncio.gather(
            client.top_logprobs(placed.name, ids, TOP), client.top_logprobs(self._base_name, ids, TOP)
        )
        delta = least_difference(with_adapter, without)
        self._exactness.require_effect(delta)
        recorded = recorded_probe(adapter)
        if recorded is not None and is_compared(adapter):
            require_recorded(recorded, with_adapter, self._exactness.allowed(recorded))
        # vLLM refuses an adapter one of whose modules it does not serve.
        return Proof(modules_bound=placed.modules, max_delta=delta, compared=is_compared(adapter))


def least_difference(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """The largest difference of a token's log-probabilities that two lists of the likeliest tokens show.

    A token that only one list has is, in the other, at most as likely as the last one there.
    """
    return max(_least(one, other), _least(other, one))


def _least(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    last = min(other.values())
    return max(abs(own - other[token]) if token in other else own - last for token, own in one.items())


def require_recorded(recorded: RecordedProbe, logprobs: Mapping[int, float], allowed: float) -> None:
    """Raises LoadFailed unless these log-probabilities are the recorded logits, each within `allowed`.

    A log-probability is the logit less a number that all tokens share. So the two differ by the same for every token,
    and where some common number brings all within `allowed`, these differences spread over at most twice that.
    """
    missing = [token for token in recorded.top_ids if token not in logprobs]
    if missing:
        raise LoadFailed(
            "effect_differs",
            f"tokens {missing} are not among the probe prompt's {len(logprobs)} likeliest, "
            f"the trainer recorded them among its {len(recorded.top_ids)} likeliest",
        )
    shifts = [logit - logprobs[token] for token, logit in zip(recorded.top_ids, recorded.top_logits, strict=False)]
    spread = max(shifts) - min(shifts)
    if not spread <= 2 * allowed:
        raise LoadFailed(
            "effect_differs",
            f"the probe prompt's log-probabilities differ from the recorded logits by {spread / 2:.3g} beside what all "
            f"share (allowed difference {allowed:.3g})",
        )


def neutral_card(shapes: Mapping[str, tuple[int, int]]) -> LoRACard:
    """An adapter of zeros on one of these layers, (out, in) features.

    vLLM on a CPU computes the base model's rows with the weights of some adapter where they share a batch with rows of
    adapters (https://github.com/vllm-project/vllm/pull/48421). Rows of this adapter give the base model's answers.
    """
    module, (rows, columns) = next(iter(shapes.items()))
    zeros = LoRAWeights(a=np.zeros((1, columns), np.float32), b=np.zeros((rows, 1), np.float32))
    return LoRACard("neutral", 1, 1.0, (module.rpartition(".")[2],), {module: zeros})


def write_peft(card: LoRACard, folder: Path) -> None:
    """The PEFT form, whole or not at all. One that is there has this name, so this digest: it is the same."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        to_peft(card, unfinished)
        unfinished.chmod(0o755)  # servers may run as another user
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
