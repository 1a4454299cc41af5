"""What adapters add to a forward pass of the untouched model: one for all rows, one for each, and merged."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.peers import RESIDENT, Bench, Measure, Peft, alternate, random_card, row_norms
from benchmarks.report import Row, Samples
from lora_core.base_model import linear_shapes
from lora_core.engine import BindReport
from lora_core.kv_cache import new_cache

CACHED = 64  # tokens in every row's cache when one more is decoded
MIXED_RANKS = (4, 8, 16, 32, 64, 8, 16, 64)
WITH_DORA = (2, 5)  # positions in MIXED_RANKS

Forward = Callable[..., Any]  # a model, or PEFT's wrapper of one: both take transformers' arguments
Pass = Callable[[], torch.Tensor]
Peer = tuple[str, dict[str, object]]  # its name, and what its forward pass is called with besides


@dataclass(frozen=True)
class Shape:
    """One kind of pass. tokens: how many each row reads; 1 is a decode step on a cache of `CACHED` tokens."""

    rows: int
    tokens: int
    rounds: int

    def __str__(self) -> str:
        if self.tokens == 1:
            return f"decode, {self.rows} row{'s'[: self.rows - 1]}"
        return f"prefill {self.rows}×{self.tokens}"

    def of(self, model: Forward, bench: Bench, **extra: object) -> Pass:
        """The pass on one side, giving the logits of the last position."""
        if self.tokens == 1:
            return _decode(model, bench.ids(self.rows, CACHED), bench.untouched.config, **extra)
        return _prefill(model, bench.ids(self.rows, self.tokens), **extra)


def _prefill(model: Forward, ids: torch.Tensor, **extra: object) -> Pass:
    def run() -> torch.Tensor:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=1, **extra).logits
        return logits

    return run


def _decode(model: Forward, ids: torch.Tensor, config: Any, **extra: object) -> Pass:
    """The cache is cut back after each step, without a copy: the next finds what this one found."""
    cache = new_cache(config)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra)

    def run() -> torch.Tensor:
        logits: torch.Tensor = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True, **extra).logits
        cache.crop(-1)
        return logits

    return run


def overhead(adapted: Samples, base: Samples) -> Samples:
    """What the first costs over the second, percent, pair by pair."""
    return Samples(tuple(100 * (a / b - 1) for a, b in zip(adapted.values, base.values, strict=True)))


def one_adapter(bench: Bench) -> list[Row]:
    """One adapter on all rows, unmerged on both sides."""
    effort = bench.effort
    shapes = (
        Shape(1, 1, effort.decodes),
        Shape(8, 1, effort.decodes),
        Shape(1, effort.tokens, effort.short_prefills),
        Shape(8, effort.tokens, effort.long_prefills),
    )
    report = bench.engine.load(bench.card)
    bench.peft.model.set_adapter(RESIDENT)
    rows = [
        _row(bench, f"one adapter, {shape}", shape, [report] * shape.rows, ask=10, peer=("PEFT unmerged", {}))
        for shape in shapes
    ]
    bench.engine.unload(report.name)
    return rows


def adapter_each(bench: Bench) -> list[Row]:
    """Eight rows with an adapter each; then where slots and rows are in no order, and the price of a new plan."""
    names = [RESIDENT, *(f"each-{number}" for number in range(1, 8))]
    reports = [bench.engine.load(files.arrow, name) for name, files in zip(names, bench.files, strict=False)]
    for name, files in zip(names[1:], bench.files[1:], strict=False):
        bench.peft.add(files.peft, name)
    peer: Peer = ("PEFT adapter_names", {"adapter_names": names})
    decode = Shape(8, 1, bench.effort.decodes)
    prefill = Shape(8, bench.effort.tokens, bench.effort.long_prefills)
    rows = [
        _row(bench, f"8 rows, 8 adapters, {shape}", shape, reports, ask=15, peer=peer) for shape in (decode, prefill)
    ]
    for name in names[1:]:
        bench.peft.delete(name)
    _unload_all(bench)
    reports = []
    for number, files in enumerate(bench.files[:8]):  # every second slot, the rows in another order than the slots
        bench.engine.load(files.arrow, f"between-{number}")
        reports.append(bench.engine.load(files.arrow, f"scattered-{number}"))
    scattered = [reports[number] for number in (3, 0, 6, 1, 7, 4, 2, 5)]
    note = "slots and rows in no order, as after many loads"
    rows.append(_row(bench, f"8 rows, 8 adapters out of order, {decode}", decode, scattered, note=note))
    rows.append(_new_plan(bench, decode, scattered))
    _unload_all(bench)
    return rows


def mixed_ranks(bench: Bench) -> list[Row]:
    """Eight adapters of ranks 4 to 64, two of them DoRA."""
    shapes = linear_shapes(bench.model)
    norms = row_norms(bench.untouched, list(shapes))
    reports = []
    for number, rank in enumerate(MIXED_RANKS):
        dora = norms if number in WITH_DORA else None
        reports.append(bench.engine.load(random_card(f"mixed-{number}", shapes, rank, number, norms=dora)))
    decode = Shape(8, 1, bench.effort.decodes)
    prefill = Shape(8, bench.effort.tokens, bench.effort.long_prefills)
    what, note = "8 rows, 8 adapters of ranks 4–64, two DoRA", f"ranks {MIXED_RANKS}"
    rows = [_row(bench, f"{what}, {shape}", shape, reports, note=note) for shape in (decode, prefill)]
    _unload_all(bench)
    return rows


@torch.inference_mode()
def _row(
    bench: Bench,
    what: str,
    shape: Shape,
    adapters: Sequence[BindReport],
    *,
    ask: float | None = None,
    peer: Peer | None = None,
    note: str = "",
) -> Row:
    """The engine's rows are chosen once for all rounds: in serving a plan lasts from step to step."""
    engine, clock = bench.engine, bench.clock
    sides: dict[str, Measure] = {"untouched": clock.measure(shape.of(bench.untouched, bench))}
    with engine.rows([adapter.name for adapter in adapters]):
        ours = shape.of(engine.model, bench)

        def idle() -> float:
            with engine.rows([None] * shape.rows):
                return clock.seconds(ours)

        sides["ours"] = clock.measure(ours)
        if ask is not None:
            sides["idle"] = idle
        if peer is not None:
            theirs = shape.of(bench.peft.model, bench, **peer[1])
            same(ours(), theirs())
            sides["peer"] = clock.measure(theirs)
        took = alternate(sides, shape.rounds)
    found = {side: overhead(samples, took["untouched"]) for side, samples in took.items()}
    mine = found["ours"].median
    base = took["untouched"].median
    peers = {} if peer is None else {peer[0]: found["peer"].median}
    return Row(
        what=f"{what}: over the untouched model",
        unit="%",
        ours=mine,
        peers=peers,
        ratio=_ratio(mine, peers),
        limit=100 * _least_added(bench, shape, adapters) / base,
        ask=None if ask is None else f"at most {ask:g}",
        met=None if ask is None else mine <= ask,
        n=shape.rounds,
        spread=found["ours"].spread,
        note="; ".join(filter(None, (_times(took), _idle(found), _bound(bench, shape, base), note))),
    )


def _ratio(mine: float, peers: dict[str, float]) -> float | None:
    first = next(iter(peers.values()), 0.0)
    return mine / first if min(mine, first) > 0 else None


def _times(took: dict[str, Samples]) -> str:
    return ", ".join(f"{side} {1000 * samples.median:.1f} ms" for side, samples in took.items())


def _idle(found: dict[str, Samples]) -> str:
    return f"engine without adapters {found['idle'].median:+.1f} %" if "idle" in found else ""


def _bound(bench: Bench, shape: Shape, base: float) -> str:
    """How near the untouched model itself is to its bound; attention and the cache are left out of it."""
    parameters = dict(bench.untouched.named_parameters()).values()
    size = sum(p.numel() * p.element_size() for p in parameters)
    head = bench.untouched.get_input_embeddings().get_parameter("weight").numel()
    inner = sum(p.numel() for p in parameters) - head
    operations = 2 * shape.rows * (inner * shape.tokens + head)
    return f"untouched takes {base / bench.bounds.least(size, operations):.2f} × its own bound"


def _least_added(bench: Bench, shape: Shape, adapters: Sequence[BindReport]) -> float:
    """Seconds: the adapters' numbers read once, or their multiplications, whichever takes longer."""
    size = sum({adapter.name: adapter.bytes for adapter in adapters}.values())
    operations = sum(2 * shape.tokens * adapter.parameters for adapter in adapters)
    return bench.bounds.least(size, operations)


@torch.inference_mode()
def _new_plan(bench: Bench, shape: Shape, adapters: Sequence[BindReport]) -> Row:
    """A batch's rows change: the plan, and the first step under it, beside the steps that follow."""
    engine, clock, names = bench.engine, bench.clock, [adapter.name for adapter in adapters]
    ours = shape.of(engine.model, bench)
    extra: list[float] = []
    for _ in range(shape.rounds):

        def first() -> None:
            with engine.rows(names):
                ours()

        changed = clock.seconds(first)
        with engine.rows(names):
            ours()
            extra.append(1000 * (changed - clock.seconds(ours)))
    samples = Samples(tuple(extra))
    return Row(
        what="8 rows, 8 adapters out of order: what a change of the batch's rows adds to its next step",
        unit="ms",
        ours=samples.median,
        n=shape.rounds,
        spread=samples.spread,
    )


def merged(bench: Bench) -> list[Row]:
    """One adapter folded into weights of its own, beside PEFT's merge into the base model's."""
    engine, clock, effort = bench.engine, bench.clock, bench.effort
    own = copy.deepcopy(bench.untouched)  # PEFT writes into the weights that it merges into
    peft = Peft(own, bench.files[0].peft)
    report = engine.load(bench.card)
    sizes: list[int] = []

    def fold() -> float:
        engine.unmerge()
        return clock.seconds(lambda: sizes.append(engine.merge(report.name)))

    def fold_peft() -> float:
        seconds = clock.seconds(peft.model.merge_adapter)
        peft.model.unmerge_adapter()
        return seconds

    with torch.inference_mode(False), torch.no_grad():
        folding = alternate({"ours": fold, "PEFT merge_adapter": fold_peft}, effort.applies)
        peft.model.merge_adapter()
    shape = Shape(1, 1, effort.decodes)
    with torch.inference_mode():
        untouched = shape.of(bench.untouched, bench)
        theirs = shape.of(peft.model, bench)
        with engine.rows([report.name]):
            ours = shape.of(engine.model, bench)

        def step() -> torch.Tensor:
            with engine.rows([report.name]):  # puts the folded weights in place and takes them out again
                return ours()

        same(step(), theirs())
        sides = {"untouched": untouched, "ours": step, "peer": theirs}
        took = alternate({side: clock.measure(call) for side, call in sides.items()}, shape.rounds)
    found = {side: overhead(samples, took["untouched"]) for side, samples in took.items()}
    peers = {"PEFT merge_adapter": found["peer"].median}
    mine = found["ours"]
    cost = {side: Samples(tuple(1000 * value for value in samples.values)) for side, samples in folding.items()}
    bytes_moved = report.bytes + 2 * sizes[-1]
    engine.unmerge()
    engine.unload(report.name)
    return [
        Row(
            what=f"one adapter, merged, {shape}: over the untouched model",
            unit="%",
            ours=mine.median,
            peers=peers,
            ratio=_ratio(mine.median, peers),
            limit=0.0,
            n=shape.rounds,
            spread=mine.spread,
            note=f"{_times(took)}; choosing the rows included",
        ),
        Row(
            what="merging one adapter",
            unit="ms",
            ours=cost["ours"].median,
            peers={"PEFT merge_adapter": cost["PEFT merge_adapter"].median},
            ratio=cost["ours"].median / cost["PEFT merge_adapter"].median,
            limit=1000 * bytes_moved / bench.bounds.copy,
            n=effort.applies,
            spread=cost["ours"].spread,
            note=f"takes {sizes[-1] / 1e6:.0f} MB beside the base weights, which stay as they are; "
            "PEFT writes into them, and its unmerge restores them to rounding alone",
        ),
    ]


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Raises RuntimeError if two sides that are timed against each other do not compute the same."""
    difference, scale = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not difference <= (1e-3 if ours.dtype == torch.float32 else 0.1) * scale:
        raise RuntimeError(f"the sides' logits differ by {difference:g} where the largest is {scale:g}")


def _unload_all(bench: Bench) -> None:
    for name in bench.engine.loaded:
        bench.engine.unload(name)
