"""What rounding the base model's weights gains in speed and costs in quality."""

from dataclasses import dataclass
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
    kept = quality(bench.model, "int8", adapters=effort.rounds)
    return [
        Row(
            what=f"weights in 8 bits: {effort.requests} requests over 8 adapters, {effort.tokens} tokens each",
            unit="tokens/s",
            ours=samples.median,
            peers={"ours, float32": plain},
            ratio=samples.median / plain,
            n=effort.rounds,
            spread=samples.spread,
            note=f"over {kept.positions} positions with adapters the same token preferred at {kept.same:.1%}, "
            f"divergence {kept.divergence:.4f} nats",
        )
    ]


@dataclass(frozen=True)
class Quality:
    """same: share of positions at which both prefer the same token. divergence: Kullback and Leibler's, nats, mean."""

    same: float
    divergence: float
    positions: int


def quality(model: Path, weights: Weights, *, adapters: int, tokens: int = 128) -> Quality:
    """Of these weights against float32, at each position of the answers that float32 prefers.

    adapters: how many, one after another; 0 for the base model. tokens: length of each of the eight answers.
    """
    engines = [ArrowEngine(*base_model.load(model, kind), slots=1, max_rank=16) for kind in ("float32", weights)]
    same, positions, divergence = 0, 0, 0.0
    for number in range(adapters or 1):
        name = "one" if adapters else None
        for engine in engines if adapters else ():
            engine.load(card(model, number), "one")
        exact = engines[0]
        for question in QUESTIONS:
            (answer,) = exact.generate([question], adapter=name, max_tokens=tokens)
            ids = list(exact.tokenizer(question)["input_ids"])
            read = torch.tensor([[*ids, *answer.token_ids]])
            wanted, ours = (_log_probabilities(engine, read, name)[len(ids) - 1 : -1] for engine in engines)
            same += int((wanted.argmax(-1) == ours.argmax(-1)).sum())
            divergence += float((wanted.exp() * (wanted - ours)).sum())
            positions += len(answer.token_ids)
    return Quality(same / positions, divergence / positions, positions)


def _log_probabilities(engine: ArrowEngine, ids: torch.Tensor, adapter: str | None) -> torch.Tensor:
    with engine.rows([adapter]):
        logits: torch.Tensor = engine.model(input_ids=ids, use_cache=False).logits[0]
        return logits.float().log_softmax(-1)
