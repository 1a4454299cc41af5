"""Serving on a GPU: today's engine, transformers' static batch and the graph decoder on one model of random weights."""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from benchmarks.gpu_models import RANK, Ceilings, Shape, Tokenizer, card, llama, seconds, wait, weights_bytes
from benchmarks.report import Row, Samples
from lora_core.engine import ArrowEngine, Request
from lora_core.graphs.decoder import Draw, GraphDecoder


@dataclass(frozen=True)
class Plan:
    """How much is measured. rows: of a batch, each with an adapter of its own; tokens: of each row."""

    device: str
    dtype: torch.dtype
    rows: tuple[int, ...]
    prompt: int
    tokens: int
    long_prompt: int
    repeats: int


class Served:
    """A model, an engine with an adapter in every slot, and prompts. adapter_bytes: of one adapter in its slot."""

    def __init__(self, shape: Shape, plan: Plan) -> None:
        self.shape, self.plan = shape, plan
        self.model: PreTrainedModel = llama(shape, plan.device, plan.dtype)
        self.engine = ArrowEngine(self.model, Tokenizer(), slots=max(plan.rows), max_rank=RANK)  # type: ignore[arg-type]
        cards = [card(self.model, seed) for seed in range(2)]
        self.loading = []
        for number in range(max(plan.rows)):
            wait(plan.device)
            began = time.perf_counter()
            self.engine.load(cards[number % 2], f"a{number}")
            wait(plan.device)
            self.loading.append(time.perf_counter() - began)
        self.adapter_bytes = cards[0].parameters * self.model.dtype.itemsize
        self.weights = weights_bytes(self.model)
        torch.manual_seed(1)
        self.prompts = torch.randint(1, shape.vocabulary, (max(plan.rows), plan.prompt)).tolist()

    def slot(self, row: int) -> int:
        return self.engine.bind_report(f"a{row}").slot

    def engine_speed(self, rows: int, *, own: bool) -> float:
        """Tokens a second of today's engine, prompts not counted."""
        requests = [
            Request(self.prompts[row], f"a{row}" if own else None, max_tokens=self.plan.tokens, stop_ids=())
            for row in range(rows)
        ]
        batch = self.engine.start(requests)
        batch.step()
        wait(self.plan.device)
        began, count = time.perf_counter(), 0
        for _ in batch:
            count += 1
        wait(self.plan.device)
        return count / (time.perf_counter() - began)

    def generate_speed(self, rows: int) -> float:
        """Tokens a second of transformers' `generate` on the base model, a static batch with prompts of one length."""
        ids = torch.tensor(self.prompts[:rows], device=self.plan.device)

        def run(tokens: int) -> float:
            wait(self.plan.device)
            began = time.perf_counter()
            self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
            )
            wait(self.plan.device)
            return time.perf_counter() - began

        run(self.plan.tokens)
        return rows * (self.plan.tokens - 1) / (run(self.plan.tokens) - run(1))

    def decoder(self, rows: int, *, own: bool, draw: Draw = Draw()) -> GraphDecoder:  # noqa: B008 - frozen
        """A graph decoder whose rows have read their prompts."""
        decoder = GraphDecoder(self.model, self.engine._bank, rows, self.plan.prompt + 3 * self.plan.tokens + 8)
        slots = [self.slot(row) if own else None for row in range(rows)]
        decoder.join(self.prompts[:rows], slots, [draw] * rows)
        decoder.collect()
        return decoder

    def graph_speed(self, rows: int, *, own: bool, draw: Draw = Draw()) -> tuple[float, float]:  # noqa: B008
        """(tokens a second, seconds of the first step with its capture); a step's tokens come while the next runs."""
        decoder = self.decoder(rows, own=own, draw=draw)
        wait(self.plan.device)
        began = time.perf_counter()
        decoder.step()
        captured = time.perf_counter() - began
        for _ in range(3):
            decoder.step()
        wait(self.plan.device)
        began = time.perf_counter()
        decoder.launch()
        for _ in range(self.plan.tokens - 1):
            decoder.launch()
            decoder.collect()
        decoder.collect()
        return rows * self.plan.tokens / (time.perf_counter() - began), captured

    def close(self) -> None:
        """Gives the device's memory back."""
        del self.engine, self.model
        gc.collect()
        if self.plan.device != "cpu":
            torch.cuda.empty_cache()


def repeated(call: Callable[[], float], repeats: int) -> Samples:
    return Samples(tuple(call() for _ in range(repeats)))


def agreement(shape: Shape, plan: Plan) -> Iterator[Row]:
    """Greedy tokens of the graph decoder beside the engine's, on one model in this precision and in float32."""
    for dtype in dict.fromkeys((torch.float32, plan.dtype)):
        served = Served(shape, Plan(plan.device, dtype, (8,), plan.prompt, plan.tokens, plan.long_prompt, 1))
        batch = served.engine.start(
            [
                Request(served.prompts[row], f"a{row}" if row % 4 else None, max_tokens=plan.tokens, stop_ids=())
                for row in range(8)
            ]
        )
        wanted: list[list[int]] = [[] for _ in range(8)]
        for row, token, _ in batch:
            wanted[row].append(token)
        decoder = GraphDecoder(served.model, served.engine._bank, 8, plan.prompt + plan.tokens + 8)
        decoder.join(served.prompts[:8], [served.slot(row) if row % 4 else None for row in range(8)], [Draw()] * 8)
        found: list[list[int]] = [[] for _ in range(8)]
        for number in range(plan.tokens):
            if number:
                decoder.launch()
            for row, (token, _) in decoder.collect().tokens.items():
                found[row].append(token)
        same = sum(_until_apart(a, b) for a, b in zip(wanted, found, strict=True))
        name = str(dtype).removeprefix("torch.")
        yield Row(
            what=f"greedy tokens equal to the engine's before a row's first difference, {shape.name}, {name}",
            unit="% of tokens",
            ours=100 * same / (8 * plan.tokens),
            n=8,
            note="8 rows, 6 of them with an adapter of their own; random weights have near ties",
        )
        served.close()


def _until_apart(wanted: list[int], found: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b), len(wanted))


def decoding(served: Served, bounds: Ceilings) -> Iterator[Row]:
    """Tokens a second by rows: the graph decoder beside today's engine and `generate`, with the bytes-moved bound."""
    plan, name = served.plan, served.shape.name
    for rows in plan.rows:
        for own in (False, True):
            captured: list[float] = []

            def graph(rows: int = rows, own: bool = own, captured: list[float] = captured) -> float:
                speed, first = served.graph_speed(rows, own=own)
                captured.append(first)
                return speed

            speed = repeated(graph, plan.repeats)
            # Once before: attention of a new shape is planned at its first use, and both sides come to it planned.
            served.engine_speed(rows, own=own)
            today = Samples((served.engine_speed(rows, own=own),))
            peers = {"today's engine": today.median}
            if not own or rows == 32:
                peers["transformers generate, base"] = served.generate_speed(rows)
            bytes_moved = served.weights + (rows * served.adapter_bytes if own else 0)
            limit = rows * bounds.bandwidth / bytes_moved
            yield Row(
                what=f"decode, {name}, {rows} rows, {'each its own adapter' if own else 'base'}",
                unit="tokens/s",
                ours=speed.median,
                peers=peers,
                ratio=speed.median / today.median,
                limit=limit,
                n=plan.repeats,
                spread=speed.spread,
                note=f"{100 * speed.median / limit:.0f} % of the bytes-moved bound; first step with its capture "
                f"{max(captured):.2f} s; prompts of {plan.prompt}, {plan.tokens} tokens",
            )
    rows = max(plan.rows)
    sampled = repeated(lambda: served.graph_speed(rows, own=True, draw=Draw(0.8, 0.9, 1))[0], plan.repeats)
    yield Row(
        what=f"decode, {name}, {rows} rows, each its own adapter, sampled with top_p on the device",
        unit="tokens/s",
        ours=sampled.median,
        n=plan.repeats,
        spread=sampled.spread,
    )


def loading(served: Served) -> Iterator[Row]:
    """An adapter into a slot, beside one copy of as many bytes from pinned memory."""
    plan = served.plan
    pinned = torch.empty(served.adapter_bytes, dtype=torch.uint8, pin_memory=plan.device != "cpu")
    pinned.random_()
    target = torch.empty_like(pinned, device=plan.device)
    copied = seconds(lambda: target.copy_(pinned, non_blocking=True), plan.device, 10).median
    found = Samples(tuple(served.loading[1:]))
    yield Row(
        what=f"adapter into a slot, {served.shape.name} rank {RANK} ({served.adapter_bytes / 1e6:.0f} MB), float16",
        unit="ms",
        ours=1e3 * found.median,
        limit=1e3 * copied,
        ask="at most 10 ms" if served.shape.name == "8B" else None,
        met=found.median <= 0.01 if served.shape.name == "8B" else None,
        n=len(found.values),
        spread=(1e3 * found.spread[0], 1e3 * found.spread[1]),
        note="limit: one copy of as many bytes from pinned memory; the rows of a running batch wait for all of it",
    )


def first_token(served: Served) -> Iterator[Row]:
    """A prompt's first token on an idle engine, its adapter in memory, beside the bare forward pass of the prompt."""
    plan, model = served.plan, served.model
    torch.manual_seed(2)
    prompt = torch.randint(1, served.shape.vocabulary, (plan.long_prompt,)).tolist()
    ids = torch.tensor([prompt], device=plan.device)

    def bare() -> None:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=True, logits_to_keep=1)

    def ours() -> None:
        batch = served.engine.start([Request(prompt, "a0", max_tokens=1, stop_ids=())])
        batch.step()
        batch.close()

    own, limit = seconds(ours, plan.device, 10), seconds(bare, plan.device, 10)
    yield Row(
        what=f"first token, {served.shape.name}, prompt of {plan.long_prompt}, adapter in memory, idle engine",
        unit="ms",
        ours=1e3 * own.median,
        limit=1e3 * limit.median,
        ratio=own.median / limit.median,
        ask="at most 2 × the prefill's own time",
        met=own.median <= 2 * limit.median,
        n=10,
        spread=(1e3 * own.spread[0], 1e3 * own.spread[1]),
        note="limit: the model's own forward pass of the prompt",
    )
    if plan.device == "cpu":
        return
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    for enabled in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(enabled)
        fresh = []
        for length in range(plan.long_prompt - 20 - enabled, plan.long_prompt - 40 - enabled, -2):
            wait(plan.device)
            began = time.perf_counter()
            with torch.inference_mode():
                model(input_ids=ids[:, :length], use_cache=True, logits_to_keep=1)
            wait(plan.device)
            fresh.append(time.perf_counter() - began)
        found = Samples(tuple(fresh))
        yield Row(
            what=f"forward pass of a prompt of a new length, {served.shape.name}, "
            f"cuDNN attention {'allowed' if enabled else 'off'}",
            unit="ms",
            ours=1e3 * found.median,
            n=len(fresh),
            spread=(1e3 * found.spread[0], 1e3 * found.spread[1]),
        )
    torch.backends.cuda.enable_cudnn_sdp(before)
