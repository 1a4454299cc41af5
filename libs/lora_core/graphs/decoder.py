"""`GraphDecoder`: one token of every row a step, the step captured as a CUDA graph by rows and positions."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from transformers import PreTrainedModel

from lora_core.graphs import draw
from lora_core.graphs.row_cache import RowCache, cacheable
from lora_core.graphs.sites import Products, TorchProducts, adapted, servable, sites_of
from lora_core.kv_cache import GrowingLayer, new_cache
from lora_core.slots.slot_bank import SlotBank

_SHORTEST = 128  # positions of the smallest bucket
_WARM_UP = 2  # runs before a capture: kernels are compiled and libraries take their workspaces


@dataclass(frozen=True)
class Draw:
    """How a row's tokens are drawn. temperature 0 is greedy; seed: 64 bits."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Drawn:
    """Tokens of a step, by place: (token, log-probability under the model itself)."""

    tokens: dict[int, tuple[int, float]]


@dataclass(frozen=True, order=True)
class _Bucket:
    """What a graph was captured for."""

    rows: int
    positions: int
    adapters: bool
    sampled: bool


class GraphDecoder:
    """Rows in places 0 to `rows - 1`, each with an adapter or none, decoded together.

    A prompt is read outside of graphs when its row joins, and its first token is drawn then. A step launches the next
    token of all rows and needs nothing from the host: tokens, positions and draws stay on the device. `launch` and
    `collect` are apart so that a step's tokens come over while the next step runs.

    Not thread-safe. Adapters that a graph cannot serve (DoRA, biases, embeddings, heads) are refused by `serves`.

    Args:
        rows: places, the largest bucket.
        positions: tokens of one row, prompt and answer together.
    """

    def __init__(self, model: PreTrainedModel, bank: SlotBank, rows: int, positions: int) -> None:
        if not cacheable(model.config):
            raise ValueError(f"{type(model).__name__} has layers that are not plain attention: no graph can serve it")
        self._model, self._bank, self.rows, self.positions = model, bank, rows, positions
        self._device = model.device
        self._on_gpu = self._device.type == "cuda"
        self._products = _products(bank, self._device)
        self._sites = sites_of(bank.groups)
        self._cache: RowCache | None = None
        self._ids = self._numbers(torch.long).unsqueeze(1)
        self._at, self._counters, self._seeds = (self._numbers(torch.long) for _ in range(3))
        self._slots = self._numbers(torch.int32) - 1
        self._ranks = torch.zeros(bank.slots, dtype=torch.int32, device=self._device)
        self._temperature, self._top_p = self._numbers(torch.float32), self._numbers(torch.float32)
        self._found = torch.zeros((2, rows), dtype=torch.float64, device=self._device)
        self._lengths: dict[int, int] = {}  # of live places, what the cache will hold after the steps launched
        self._choice: dict[int, tuple[int | None, Draw]] = {}
        self._graphs: dict[_Bucket, Callable[[], object]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._on_gpu else None
        self._launched: deque[tuple[tuple[int, ...], torch.Tensor, torch.cuda.Event | None]] = deque()

    @property
    def live(self) -> tuple[int, ...]:
        """Places with a row."""
        return tuple(self._lengths)

    @property
    def captured(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def serves(self, slot: int) -> bool:
        """Can a graph serve this slot's adapter?"""
        for group in self._bank.groups:
            for member in group.members:
                if member.used[slot] and not servable(group):
                    return False
                if member.dora[slot] or member.shifted[slot]:
                    return False
        return True

    def join(self, prompts: Sequence[Sequence[int]], slots: Sequence[int | None], draws: Sequence[Draw]) -> list[int]:
        """Read prompts, [each its own length], and put their rows into the lowest free places, which are returned.

        The first token of each comes with the next `collect`. Raises ValueError where there is no room: places, or
        positions for the prompt and one token; and for an adapter that no graph serves.
        """
        free = [place for place in range(self.rows) if place not in self._lengths][: len(prompts)]
        if len(free) < len(prompts):
            raise ValueError(f"{len(prompts)} rows for {len(free)} free places of {self.rows}")
        for prompt, slot in zip(prompts, slots, strict=True):
            if not 0 < len(prompt) < self.positions:
                raise ValueError(f"a prompt of {len(prompt)} tokens, expected 1 to {self.positions - 1}")
            if slot is not None and not self.serves(slot):
                raise ValueError(f"the adapter in slot {slot} has parts that no graph serves")
        with torch.inference_mode():
            self._read(free, prompts, slots, draws)
        return free

    def leave(self, place: int) -> None:
        """End a row; its place is free. Tokens that are launched for it already are not collected."""
        del self._lengths[place], self._choice[place]
        self._slots[place] = -1  # its programs end at once

    def compact(self) -> dict[int, int]:
        """Move rows from the highest places into free lower ones, so that smaller buckets do: place → new place."""
        moved: dict[int, int] = {}
        with torch.inference_mode():
            while self._lengths:
                highest = max(self._lengths)
                lowest = next((place for place in range(highest) if place not in self._lengths), None)
                if lowest is None or _bucket(highest + 1) == _bucket(len(self._lengths)):
                    break
                self._move(highest, lowest)
                moved[highest] = lowest
        return moved

    def launch(self) -> None:
        """Begin a step: the next token of every live row. Raises ValueError where a row has no position left."""
        if not self._lengths:
            return
        longest = max(self._lengths.values())
        if longest >= self.positions:
            raise ValueError(f"a row has all of its {self.positions} positions: end it")
        sampled = any(draw.temperature > 0 for _, draw in self._choice.values())
        adapters = any(slot is not None for slot, _ in self._choice.values())
        places = min(_bucket(max(self._lengths) + 1), self.rows)
        bucket = _Bucket(places, min(self.positions, _bucket(longest + 1, _SHORTEST)), adapters, sampled)
        if bucket not in self._graphs:
            self._graphs[bucket] = self._captured(bucket)
        with torch.inference_mode():
            self._graphs[bucket]()
        for place in self._lengths:
            self._lengths[place] += 1
        self._send(tuple(self._lengths))

    def collect(self) -> Drawn:
        """The tokens of the oldest step (or prompts) not collected yet; waits for them."""
        places, found, event = self._launched.popleft()
        if event is not None:
            event.synchronize()
        tokens, logprobs = found.tolist()
        return Drawn({place: (int(tokens[place]), logprobs[place]) for place in places if place in self._lengths})

    def step(self) -> Drawn:
        """`launch`, then `collect` of the oldest."""
        self.launch()
        return self.collect()

    def _read(
        self, places: list[int], prompts: Sequence[Sequence[int]], slots: Sequence[int | None], draws: Sequence[Draw]
    ) -> None:
        """Prompts of one length are read together: nothing is padded, so nothing has to be cut from the cache."""
        by_length: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt), []).append(index)
        for length, together in by_length.items():
            ids = torch.tensor([list(prompts[index]) for index in together], device=self._device)
            choices = [() if (slot := slots[index]) is None else ((slot, 1.0),) for index in together]
            cache = new_cache(self._model.config)
            with self._bank.rows(self._bank.plan(choices)):
                logits = self._model(
                    input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
                ).logits[:, -1].float()  # fmt: skip
            layers = [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]
            read = [(cast("torch.Tensor", layer.keys), cast("torch.Tensor", layer.values)) for layer in layers]
            if self._cache is None:
                self._cache = RowCache(self.rows, self.positions, read)
            for row, index in enumerate(together):
                place = places[index]
                self._cache.fill(place, [(keys[row], values[row]) for keys, values in read])
                self._choice[place], self._lengths[place] = (slots[index], draws[index]), length
            self._set([places[index] for index in together], length, logits)

    def _set(self, places: list[int], length: int, logits: torch.Tensor) -> None:
        index = torch.tensor(places, device=self._device)
        chosen = [self._choice[place] for place in places]

        def of(values: list[float] | list[int], like: torch.Tensor) -> torch.Tensor:
            return torch.tensor(values, dtype=like.dtype, device=self._device)

        self._slots[index] = of([-1 if slot is None else slot for slot, _ in chosen], self._slots)
        self._ranks.copy_(torch.tensor(self._bank.ranks, dtype=torch.int32))
        self._temperature[index] = of([draw.temperature for _, draw in chosen], self._temperature)
        self._top_p[index] = of([draw.top_p for _, draw in chosen], self._top_p)
        self._seeds[index] = of([_signed(draw.seed) for _, draw in chosen], self._seeds)
        self._at[index], self._counters[index] = length, 1
        fresh = torch.zeros(len(places), dtype=torch.long, device=self._device)
        token = draw.drawn(logits, self._temperature[index], self._top_p[index], self._seeds[index], fresh)
        self._ids[index, 0] = token
        self._found[:, index] = torch.stack([token.double(), draw.log_probabilities(logits, token).double()])
        self._send(tuple(places))

    def _send(self, places: tuple[int, ...]) -> None:
        """Begin the one transfer of what the device has found."""
        if not self._on_gpu:
            self._launched.append((places, self._found.clone(), None))
            return
        host = torch.empty(self._found.shape, dtype=self._found.dtype, pin_memory=True)
        host.copy_(self._found, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._launched.append((places, host, event))

    def _move(self, place: int, to: int) -> None:
        assert self._cache is not None
        self._cache.move(place, to, self._lengths[place])
        for numbers in (self._ids, self._at, self._counters, self._seeds, self._slots, self._temperature, self._top_p):
            numbers[to] = numbers[place]
        self._slots[place] = -1
        self._lengths[to], self._choice[to] = self._lengths.pop(place), self._choice.pop(place)

    def _captured(self, bucket: _Bucket) -> Callable[[], object]:
        step = self._step(bucket)
        if not self._on_gpu:
            return step
        state = [self._ids, self._at, self._counters, self._found]
        before = [numbers.clone() for numbers in state]
        with torch.inference_mode():
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                step()
            # The warm-up wrote ahead in the cache, where each row's own steps write again before they read.
            for numbers, was in zip(state, before, strict=True):
                numbers.copy_(was)
        return graph.replay

    def _step(self, bucket: _Bucket) -> Callable[[], None]:
        assert self._cache is not None, "a row has joined"
        count = bucket.rows
        ids, slots, found = self._ids[:count], self._slots[:count], self._found[:, :count]
        at, counters, seeds = self._at[:count], self._counters[:count], self._seeds[:count]
        temperature, top_p = self._temperature[:count], self._top_p[:count]
        inside = torch.empty_like(at)  # places without a row count on, and stay within their own
        cache = self._cache.view(bucket.positions, inside)
        keys = torch.arange(bucket.positions, device=self._device)

        def step() -> None:
            torch.clamp(at, max=bucket.positions - 1, out=inside)
            mask = (keys <= inside.unsqueeze(1)).view(count, 1, 1, bucket.positions)
            with adapted(self._sites, self._products, slots, self._ranks) if bucket.adapters else nullcontext():
                logits = self._model(
                    input_ids=ids,
                    position_ids=inside.unsqueeze(1),
                    attention_mask=mask,
                    past_key_values=cache,
                    use_cache=True,
                ).logits[:, -1].float()  # fmt: skip
            if bucket.sampled:
                token = draw.drawn(logits, temperature, top_p, seeds, counters)
            else:
                token = draw.likeliest(logits)
            found[0].copy_(token)
            found[1].copy_(draw.log_probabilities(logits, token))
            ids.copy_(token.unsqueeze(1))
            at.add_(1)
            counters.add_(1)

        return step

    def _numbers(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(self.rows, dtype=dtype, device=self._device)


def _products(bank: SlotBank, device: torch.device) -> Products:
    if device.type != "cuda":
        return TorchProducts()
    from lora_core.graphs.kernels import TritonProducts

    return TritonProducts(bank.max_rank)


def _bucket(count: int, smallest: int = 1) -> int:
    """The power of two at or above."""
    return max(smallest, 1 << (count - 1).bit_length())


def _signed(seed: int) -> int:
    seed &= 0xFFFF_FFFF_FFFF_FFFF
    return seed - (1 << 64) if seed >= 1 << 63 else seed
