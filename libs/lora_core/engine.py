"""`ArrowEngine`: one base model, many adapters, batches in which every row has its own.

Where a request goes, file by file:

1. `sampling.Request`: a prompt, an adapter, and how its tokens are drawn.
2. `ArrowEngine.start` (here) makes a `batch.Batch`; its lease holds the slots of its rows' adapters.
3. `Batch.step` runs each `padded_batch.PaddedBatch`: rows of one forward pass, with their `kv_cache`. Models of the
   Llama family on a processor are computed by `direct.decoder`, all others by transformers (`forward_pass`).
4. `slots.row_plan` gives each row its slots; `slots.slot_bank` adds what their adapters compute.
5. `sampling.Sampler` picks the tokens; a row that ends gives its slots back.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_core import base_model
from lora_core.batch import Batch
from lora_core.card import LoRACard
from lora_core.direct.decoder import DirectDecoder
from lora_core.errors import AdapterNotFound
from lora_core.format.arrow_format import LoRAFormat
from lora_core.forward_pass import Inputs
from lora_core.kv_cache import grows, new_cache
from lora_core.lease import Lease, LoadedAdapter
from lora_core.manager import LoRAManager
from lora_core.prefix_cache import PrefixCache
from lora_core.reports import BindReport, Effect, Generation, Probe, TopLogits
from lora_core.sampling import Adapters, Request, SamplingParams
from lora_core.sentence_vectors import sentence_vectors
from lora_core.slots.placement import gather
from lora_core.slots.row_plan import weights_of
from lora_core.slots.slot_bank import SlotBank

__all__ = ["ArrowEngine", "BindReport", "Effect", "Generation", "Probe", "Request", "TopLogits"]


class ArrowEngine:
    """Serves a transformers causal language model with adapters in slots.

    Thread-safe: each forward pass, load and unload takes one lock, so that several threads may each run a batch. A
    loaded adapter answers from the next batch on; an unloaded one can no longer be requested, while running rows end
    with it. With no adapter on any row the model computes exactly what it did before.

    slots, max_rank, full_slots: see `SlotBank`.
    prefill_tokens: how much of joining prompts a step of a batch reads at most while its other rows wait for a token.
    prefix_bytes: how much of beginnings of prompts is kept, see `Request.scope`; 0 keeps none.
    packed_weights: a second copy of float32 linear layers in the processor's order, which makes steps faster.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        slots: int = 16,
        max_rank: int = 64,
        prefill_tokens: int = 256,
        *,
        full_slots: int | None = None,
        prefix_bytes: int = 0,
        packed_weights: bool = True,
    ) -> None:
        self.model, self.tokenizer, self._prefill_tokens = model, tokenizer, prefill_tokens
        self.manager = LoRAManager(model)
        self._bank = SlotBank(model, slots, max_rank, full_slots)
        self.prefixes = PrefixCache(prefix_bytes) if prefix_bytes and grows(model.config) else None
        """Beginnings of prompts that rows of one scope share."""
        self._numbers = count()
        self._direct = DirectDecoder.of(model, self._bank, packed_weights)
        self._lock = threading.RLock()
        self._loaded: dict[str, LoadedAdapter] = {}
        self.stops = base_model.end_tokens(model.generation_config, tokenizer)

    @classmethod
    def open(cls, folder: Path | str, slots: int = 16, max_rank: int = 64) -> Self:
        """An engine on the base model in `folder`."""
        model, tokenizer = base_model.load(folder)
        return cls(model, tokenizer, slots, max_rank)

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Module name → (out, in) of the layers that adapters can target, as the loaded model names them."""
        return self._bank.shapes

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the adapters that requests can pick, in loading order."""
        with self._lock:
            return tuple(self._loaded)

    @property
    def free_slots(self) -> int:
        """How many more adapters can be loaded now."""
        with self._lock:
            return self._bank.free

    def load(self, card: LoRACard | Path | str, name: str | None = None) -> BindReport:
        """Copy an adapter (a card or an adapter file) into a slot, under `name` or its own.

        Loading what is loaded already (same name, same content digest) changes nothing; another adapter under a
        name in use replaces it. Raises InvalidAdapter, SlotsFull, and for a path AdapterNotFound or CorruptAdapter.
        """
        if not isinstance(card, LoRACard):
            card = LoRAFormat.load(card)
        name = name or card.name
        with self._lock:
            present = self._loaded.get(name)
            if present is not None and card.digest and present.card_digest == card.digest:
                return present.report
            if present is not None and not present.users and not self._bank.fits(card.max_rank):
                self._bank.check(card)  # refuse before the old one is given up for it
                if self._bank.fits(card.max_rank, instead_of=present.slot):
                    self.unload(name)
            slot = self._bank.put(card)
            self.unload(name)
            size = self.model.dtype.itemsize * card.parameters
            report = BindReport(name, slot, len(card.weights), card.parameters, size, card.digest)
            self._loaded[name] = LoadedAdapter(card.digest, report, next(self._numbers))
            return report

    def bind_report(self, name: str, prompt_ids: Sequence[int] | None = None) -> BindReport:
        """What loading `name` bound and, given a probe prompt, what it changes there. Raises AdapterNotFound."""
        with self._lock:
            report = self._find(name).report
        if prompt_ids is None:
            return report
        ids = torch.tensor([list(prompt_ids)] * 2, device=self.model.device)
        with self.rows([None, name]):
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        base, own = logits.log_softmax(-1)
        divergence = torch.nn.functional.kl_div(base, own, log_target=True, reduction="sum")
        return replace(report, effect=Effect(float((logits[1] - logits[0]).abs().max()), max(0.0, float(divergence))))

    def unload(self, name: str) -> None:
        """Take an adapter out of service; rows that use it run to their end. Unknown names are no error."""
        with self._lock:
            loaded = self._loaded.pop(name, None)
            if loaded is not None:
                loaded.retired = True
                if not loaded.users:
                    self._bank.drop(loaded.slot)

    def trim(self) -> None:
        """Give memory that no adapter uses back to the system (on the CPU; a GPU's stays reserved for slots).

        Kept beginnings of prompts are forgotten.
        """
        if self.prefixes is not None:
            self.prefixes.clear()
        with self._lock:
            self._bank.trim()

    def merge(self, name: str) -> int:
        """Fold a loaded adapter into weights of its own for passes in which every row uses it, until it is unloaded.

        Such passes cost what the base model does. Every other pass runs as before, on the base model's own untouched
        weights. Returns the bytes that the folded weights take. Raises AdapterNotFound, and UnsupportedAdapter on
        quantised base layers.
        """
        with self._lock:
            return self._bank.merge(self._find(name).slot)

    def unmerge(self) -> None:
        """Forget the folded weights."""
        with self._lock:
            self._bank.unmerge()

    def start(self, requests: Sequence[Request]) -> Batch:
        """A batch of these requests; nothing is computed before its first step.

        Raises AdapterNotFound if a request names an adapter that is not loaded. Its slots are held until each row
        ends: step the batch to its end or close it.
        """
        return Batch(self.model, requests, self.stops, Lease(self), self._prefill_tokens)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        adapter: Adapters = None,
        max_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> list[Generation]:
        """Complete texts as they are (no chat template), all with one adapter or none, in one batch.

        Raises what a row failed with, see `Batch`.
        """
        sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        batch = self.start([sampling.request(self.tokenizer(prompt)["input_ids"], adapter) for prompt in prompts])
        tokens: list[list[tuple[int, float]]] = [[] for _ in prompts]
        try:
            for row, token, logprob in batch:
                tokens[row].append((token, logprob))
        finally:
            batch.close()
        for row in range(len(prompts)):
            if (fault := batch.fault(row)) is not None:
                raise fault
        return [self._generation(row, drawn, batch) for row, drawn in enumerate(tokens)]

    def logprobs(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], adapter: Adapters = None
    ) -> list[float]:
        """Log-probability of each completion token after the prompt and the tokens before it."""
        return [logprob for logprob, _ in self.scores(prompt_ids, completion_ids, adapter)]

    def scores(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], adapter: Adapters = None, alternatives: int = 0
    ) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
        """As `logprobs`, each with the likeliest tokens of its position: (token, log-probability), likeliest first."""
        if not prompt_ids or not completion_ids:
            raise ValueError("prompt_ids and completion_ids: expected at least one token each")
        ids = torch.tensor([[*prompt_ids, *completion_ids]], device=self.model.device)
        with self.rows([adapter]):
            kept = len(completion_ids) + 1
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0, :-1].float()
        targets = ids[0, len(prompt_ids) :]
        found = logits.log_softmax(-1)
        picked = found.gather(1, targets.unsqueeze(1)).squeeze(1).tolist()
        values, tokens = found.topk(min(alternatives, found.shape[1]), dim=1)
        pairs = zip(tokens.tolist(), values.tolist(), strict=True)
        likely = [tuple(zip(row, of_row, strict=True)) for row, of_row in pairs]
        return list(zip(picked, likely, strict=True))

    def probe(self, prompt_ids: Sequence[int], adapter: Adapters = None, top: int = 16) -> TopLogits:
        """The largest logits after a prompt. Unequal probes with and without an adapter prove that it has effect."""
        logits = torch.from_numpy(self.next_logits(prompt_ids, adapter))
        values, tokens = logits.topk(min(top, logits.shape[0]))
        return TopLogits(tuple(tokens.tolist()), tuple(values.tolist()))

    def next_logits(self, prompt_ids: Sequence[int], adapter: Adapters = None) -> npt.NDArray[np.float32]:
        """The logits of the token after a prompt, [vocabulary], by the pass that a batch would read it with."""
        ids = torch.tensor([list(prompt_ids)], device=self.model.device)
        lease = Lease(self)
        lease.hold([0], [adapter])
        try:
            logits = lease.read(lease.plan([0]), Inputs(ids, (0,), 0, last=True), new_cache(self.model.config))
        finally:
            lease.release(0)
        assert logits is not None
        found: npt.NDArray[np.float32] = logits[0].float().cpu().numpy()
        return found

    def encode(self, texts: Sequence[str | Sequence[int]], adapter: Adapters = None) -> npt.NDArray[np.float32]:
        """Sentence vectors, [texts, hidden]: mean of the last hidden states, of length 1. Adapters must be loaded.

        texts: each a text, or the token ids of one.
        """
        prompts = [self.tokenizer(text)["input_ids"] if isinstance(text, str) else list(text) for text in texts]
        if not all(prompts):
            raise ValueError("a text has no tokens: expected at least one in each")
        with self.rows([adapter] * len(prompts)):
            return sentence_vectors(self.model, prompts)

    def encode_with_lora(
        self, texts: Sequence[str | Sequence[int]], adapter: LoRACard | Path | str
    ) -> npt.NDArray[np.float32]:
        """As `encode`, with an adapter: the name of a loaded one, or a card or file that is loaded for this call."""
        if isinstance(adapter, str) and adapter in self.loaded:
            return self.encode(texts, adapter)
        card = adapter if isinstance(adapter, LoRACard) else LoRAFormat.load(adapter)
        name = f"{card.name} (for one call {id(card):x})"
        self.load(card, name)
        try:
            return self.encode(texts, name)
        finally:
            self.unload(name)

    @contextmanager
    def rows(self, adapters: Sequence[Adapters]) -> Iterator[None]:
        """Forward passes of `model` inside use these adapters: `adapters[i]` on row i of every batch.

        Without gradients; other threads' passes wait. Do not copy or save the model inside.
        Raises AdapterNotFound, and ValueError for a set of more than 3.
        """
        lease = Lease(self)
        lease.hold(range(len(adapters)), adapters)
        try:
            with self._lock, self._bank.rows(lease.plan(range(len(adapters)))), torch.inference_mode():
                yield
        finally:
            for row in range(len(adapters)):
                lease.release(row)

    def _hold(self, rows: Sequence[int], adapters: Sequence[Adapters]) -> dict[int, list[tuple[LoadedAdapter, float]]]:
        with self._lock:
            chosen = [[(self._find(name), weight) for name, weight in weights_of(own)] for own in adapters]
            for adapter, _ in (use for uses in chosen for use in uses):
                if not adapter.users:
                    gather(self._bank, adapter, self._loaded.values())
                adapter.users += 1
        return {row: uses for row, uses in zip(rows, chosen, strict=True) if uses}

    def _find(self, name: str) -> LoadedAdapter:
        if name not in self._loaded:
            raise AdapterNotFound(f"adapter {name!r} is not loaded (loaded: {', '.join(self._loaded) or 'none'})")
        return self._loaded[name]

    def _release(self, loaded: LoadedAdapter) -> None:
        with self._lock:
            loaded.users -= 1
            if loaded.retired and not loaded.users:
                self._bank.drop(loaded.slot)

    def _generation(self, row: int, drawn: Sequence[tuple[int, float]], batch: Batch) -> Generation:
        tokens, logprobs = tuple(token for token, _ in drawn), tuple(logprob for _, logprob in drawn)
        text = str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return Generation(text, tokens, logprobs, batch.finish_reason(row) or "cancelled")
