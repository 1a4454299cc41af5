"""What a shared system prompt gains in the engine, what forms cost, and how near rounded weights come."""

import statistics

from benchmarks.report import Row, Samples
from benchmarks.serving_engines import ADAPTERS, Bench, prompt, requests, timed
from benchmarks.serving_weights import quality
from lora_core import ArrowEngine, Request
from lora_core.device import Weights
from lora_core.grammar import ANY_OBJECT, Grammars


def shared_prompt(bench: Bench) -> list[Row]:
    """Requests over 8 adapters with one system prompt, all at once, with and without kept beginnings."""
    effort = bench.effort
    system, rows = prompt(effort.system, 0), []
    kinds: tuple[Weights, ...] = ("float32", "int8")
    for weights in kinds:
        sides = {"kept": bench.engine(weights, 1 << 30), "none": bench.engine(weights)}
        seen: dict[str, list[float]] = {"first": [], "kept": [], "none": []}

        def run(engine: ArrowEngine, seed: int) -> float:
            """Tokens a second."""
            asked: list[Request] = [
                Request([*system, *prompt(20, 1000 * seed + row)], ADAPTERS[row % 8], "one", max_tokens=effort.answer,
                        stop_ids=())
                for row in range(effort.rows)
            ]  # fmt: skip
            return effort.rows * effort.answer / timed(lambda: list(engine.start(asked)))

        kept = sides["kept"].prefixes
        assert kept is not None
        for turn in range(1 if weights == "float32" else 2):
            kept.clear()
            seen["first"].append(run(sides["kept"], 3 * turn))
            seen["kept"].append(run(sides["kept"], 3 * turn + 1))
            seen["none"].append(run(sides["none"], 3 * turn + 2))
        took = Samples(tuple(seen["kept"]))
        without = statistics.median(seen["none"])
        stats = kept.stats
        rows.append(
            Row(
                f"{effort.rows} requests over 8 adapters, one system prompt of {effort.system} tokens, answers of "
                f"{effort.answer}, {weights}",
                "tokens/s",
                took.median,
                {"nothing kept": without},
                took.median / without,
                ask="at least 2.5 x",
                met=took.median >= 2.5 * without,
                n=len(took.values),
                spread=took.spread,
                note=f"the first such burst, which computes it for each adapter: {statistics.median(seen['first']):.1f}"
                f" tokens/s; {stats.found / max(1, stats.wanted):.0%} of prompt tokens found, "
                f"{stats.bytes / 1e6:.0f} MB",
            )
        )
    return rows


def forms(bench: Bench) -> list[Row]:
    """What rows that follow a form cost all rows of their steps."""
    rows = []
    kinds: tuple[Weights, ...] = ("float32", "int8")
    for weights in kinds:
        engine = bench.engine(weights)
        size = engine.model.config.get_text_config().vocab_size
        grammar = Grammars(engine.tokenizer, int(size), engine.stops).of(ANY_OBJECT)
        seen: dict[int, list[float]] = {0: [], 1: [], 4: []}
        running = {
            count: engine.start(requests(8, adapters=False, grammar=grammar, constrained=count)) for count in seen
        }
        for turn in range(2 + 2 * bench.effort.steps):
            for count, one in running.items():
                took = timed(one.step)
                if turn >= 2:
                    seen[count].append(1000 * took)
        for one in running.values():
            one.close()
        plain = statistics.median(seen[0])
        for count in (1, 4):
            added = 100 * (statistics.median(seen[count]) / plain - 1)
            rows.append(
                Row(
                    f"step of 8 rows, {weights}: what {count} of them add that follow a form",
                    "%",
                    added,
                    ask="at most 5",
                    met=added <= 5,
                    n=len(seen[count]),
                    note=f"{plain:.1f} ms without",
                )
            )
    return rows


def rounding(bench: Bench) -> list[Row]:
    """How far answers of rounded weights are from those of float32."""
    rows = []
    kinds: tuple[Weights, ...] = ("int8", "bfloat16")
    for weights in kinds:
        for what, adapters in (("the base model", 0), ("adapters", bench.effort.judged)):
            found = quality(bench.model, weights, adapters=adapters)
            asked = weights == "int8"
            rows.append(
                Row(
                    f"weights as {weights}, {what}: same token preferred",
                    "%",
                    100 * found.same,
                    ask="at least 98, divergence at most 0.005" if asked else None,
                    met=found.same >= 0.98 and found.divergence <= 0.005 if asked else None,
                    n=found.positions,
                    note=f"divergence {found.divergence:.4f} nats, over {found.positions} positions of answers",
                )
            )
    return rows
