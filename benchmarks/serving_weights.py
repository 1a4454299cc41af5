"""What rounding the base model's weights gains in speed and costs in quality."""

from pathlib import Path

import torch

from benchmarks.report import Row, Samples
from benchmarks.serving_load import LoadRequest
from benchmarks.serving_plan import QUESTIONS, Bench, offered, resident
from benchmarks.serving_stage import Stage, card, stage
from lora_core import ArrowEngine, base_model
from lora_core.device import Weights


async def rounded(bench: Bench) -> list[Row]:
    """Tokens a second with 8-bit weights beside float32, in turns; and how far answers change."""
    effort = bench.effort
    settings = {"batch_rows": str(effort.rows), "queue_limit": "400"}
    seen: dict[str, list[float]] = {"int8": [], "float32": []}
    async with (
        stage(bench.fleet, bench.model, weights="int8", **settings) as small,
        stage(bench.fleet, bench.model, weights="float32", **settings) as exact,
    ):
        sides: dict[str, tuple[Stage, list[LoadRequest]]] = {}
        for name, at in (("int8", small), ("float32", exact)):
            adapters = await resident(bench, at, 8)
            sides[name] = (
                at,
                [
                    LoadRequest(adapters[n % 8].adapter_id, QUESTIONS[n % len(QUESTIONS)])
                    for n in range(effort.requests)
                ],
            )
        for _ in range(effort.rounds):
            for name, (at, requests) in sides.items():
                seen[name].append((await offered(at, requests, effort.tokens)).tokens_per_second)
    samples = Samples(tuple(seen["int8"]))
    plain = Samples(tuple(seen["float32"])).median
    agreement, divergence, positions = quality(bench.model, "int8")
    return [
        Row(
            what=f"weights in 8 bits: {effort.requests} requests over 8 adapters, {effort.tokens} tokens each",
            unit="tokens/s",
            ours=samples.median,
            peers={"ours, float32": plain},
            ratio=samples.median / plain,
            n=effort.rounds,
            spread=samples.spread,
            note=f"over {positions} positions with an adapter the same token preferred at {agreement:.1%}, "
            f"divergence {divergence:.4f} nats",
        )
    ]


def quality(model: Path, weights: Weights) -> tuple[float, float, int]:
    """Share of positions that prefer the same token, mean Kullback–Leibler divergence in nats, number of positions."""
    same, positions, divergence = 0, 0, 0.0
    engines = [ArrowEngine(*base_model.load(model, kind), slots=1, max_rank=16) for kind in ("float32", weights)]
    for engine in engines:
        engine.load(card(model, 0), "one")
    for question in QUESTIONS:
        ids = torch.tensor([engines[0].tokenizer(question)["input_ids"]])
        exact, ours = (_log_probabilities(engine, ids) for engine in engines)
        same += int((exact.argmax(-1) == ours.argmax(-1)).sum())
        divergence += float((exact.exp() * (exact - ours)).sum())
        positions += ids.shape[1]
    return same / positions, divergence / positions, positions


def _log_probabilities(engine: ArrowEngine, ids: torch.Tensor) -> torch.Tensor:
    with engine.rows(["one"]):
        logits: torch.Tensor = engine.model(input_ids=ids, use_cache=False).logits[0]
        return logits.float().log_softmax(-1)
