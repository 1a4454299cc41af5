"""What serving many adapters costs: `python -m benchmarks.serving [--quick] [--part NAME] [--json FILE]`.

One inference process on its real servers, loaded over HTTP from another process, beside PEFT and transformers in this
one; vLLM and llama.cpp beside it where their programs are named (`benchmarks.serving_peers`).
"""

import asyncio
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.report import Row, Samples, emit, parser_of
from benchmarks.serving_load import LoadRequest, load
from benchmarks.serving_peers import InProcess, Job, llama_server, vllm
from benchmarks.serving_plan import QUESTIONS, Bench, Effort, arrivals, offered, percentiles, resident
from benchmarks.serving_stage import stage
from benchmarks.serving_streams import held
from benchmarks.serving_swaps import activation, many, switching
from benchmarks.serving_weights import rounded
from fleet_cli.stack import Fleet, prepare_base_model
from fleet_cli.stack.home import Home, default_home

OURS, OURS_PLAIN = "ours", "ours, base rows"
STATIC = "transformers generate, batches of 8"
WHOLE = "PEFT adapter_names, one batch of all"
VLLM = ("bfloat16", "float32")


async def throughput(bench: Bench) -> tuple[list[Row], float]:
    """All requests at once: mixed adapters and base rows, beside the peers. Also gives the mixed tokens a second."""
    effort = bench.effort
    prompts = [QUESTIONS[n % len(QUESTIONS)] for n in range(effort.requests)]
    seen = await _in_turns(bench, prompts)
    await asyncio.to_thread(_other_servers, bench, prompts, seen)
    found = {name: Samples(tuple(values)) for name, values in seen.items()}
    plain = {name for name in found if name.startswith("transformers") or name.endswith("base rows")} - {OURS_PLAIN}
    mixed = {name: found[name].median for name in found if name not in plain | {OURS, OURS_PLAIN}}
    asks = {WHOLE: 1.5} | {name: 3.0 for name in mixed if name.startswith("vLLM")}
    what = f"{effort.requests} requests over 8 adapters"
    rows = [_rate(what, effort.tokens, found[OURS], mixed, beside, ask) for beside, ask in asks.items()]
    rows.append(
        _rate(
            f"{effort.requests} requests of the base model",
            effort.tokens,
            found[OURS_PLAIN],
            {name: found[name].median for name in plain},
            STATIC,
            1.0,
        )
    )
    return rows, found[OURS].median


async def _in_turns(bench: Bench, prompts: Sequence[str]) -> dict[str, list[float]]:
    """Tokens a second of ours and of what runs in this process, alternating."""
    effort = bench.effort
    peers = InProcess(bench.model, {f"a{n}": bench.peft(n) for n in range(8)}, effort.tokens)
    jobs: list[Job] = [(f"a{n % 8}", prompt) for n, prompt in enumerate(prompts)]
    sides = {
        "PEFT adapter_names, batches of 8": lambda: peers.adapter_names(jobs, 8),
        WHOLE: lambda: peers.adapter_names(jobs, len(jobs)),
        "PEFT set_adapter for each adapter": lambda: peers.switching(jobs, 8),
        STATIC: lambda: peers.plain(jobs, 8),
        f"transformers generate, one batch of {len(jobs)}": lambda: peers.plain(jobs, len(jobs)),
    }
    seen: dict[str, list[float]] = {name: [] for name in (OURS, OURS_PLAIN, *sides)}
    async with stage(bench.fleet, bench.model, batch_rows=str(effort.rows), queue_limit="400") as at:
        adapters = await resident(bench, at, 8)
        requests = {
            OURS: [LoadRequest(adapters[n % 8].adapter_id, prompt) for n, prompt in enumerate(prompts)],
            OURS_PLAIN: [LoadRequest(at.base, prompt) for prompt in prompts],
        }
        await offered(at, requests[OURS], effort.tokens)
        for _ in range(effort.rounds):
            for name, own in requests.items():
                seen[name].append((await offered(at, own, effort.tokens)).tokens_per_second)
            for name, side in sides.items():
                seen[name].append(await asyncio.to_thread(side))
    return seen


def _other_servers(bench: Bench, prompts: Sequence[str], seen: dict[str, list[float]]) -> None:
    """The same load on servers of others, each alone on the machine."""
    effort = bench.effort

    def measure(name: str, url: str, requests: Sequence[LoadRequest]) -> None:
        load(url, "", requests[:4], effort.tokens)
        seen[name] = [load(url, "", requests, effort.tokens).tokens_per_second for _ in range(min(2, effort.rounds))]

    for dtype in VLLM:
        with vllm(bench.model, {f"a{n}": bench.peft(n) for n in range(8)}, dtype) as url:
            if url:
                measure(f"vLLM, {dtype}", url, [LoadRequest(f"a{n % 8}", prompt) for n, prompt in enumerate(prompts)])
                measure(f"vLLM, {dtype}, base rows", url, [LoadRequest("base", prompt) for prompt in prompts])
    with llama_server(os.environ.get("LORAFLEET_GGUF", "")) as url:
        if url:
            measure("llama.cpp, base rows", url, [LoadRequest("base", prompt) for prompt in prompts])


def _rate(what: str, tokens: int, ours: Samples, peers: Mapping[str, float], beside: str, ask: float) -> Row:
    ratio = ours.median / peers[beside]
    return Row(
        what=f"{what}, {tokens} tokens each, all at once, beside {beside}",
        unit="tokens/s",
        ours=ours.median,
        peers={beside: peers[beside], **peers},
        ratio=ratio,
        ask=f"at least {ask:g} × {beside}",
        met=ratio >= ask,
        n=len(ours.values),
        spread=ours.spread,
        note="streamed over HTTP to a load generator on the same cores",
    )


async def latency(bench: Bench, saturation: float) -> list[Row]:
    """Open-loop load at parts of saturation: time to first token and between tokens."""
    rows = []
    async with stage(bench.fleet, bench.model, batch_rows=str(bench.effort.rows), queue_limit="400") as at:
        adapters = await resident(bench, at, 8)
        for part in (0.5, 0.8):
            rate = part * saturation / bench.effort.tokens
            requests = arrivals([one.adapter_id for one in adapters], rate, bench.effort.seconds / 2, seed=1)
            outcome = await offered(at, requests, bench.effort.tokens)
            rows.append(
                Row(
                    f"time to first token at {part:.0%} of saturation, p50",
                    "ms",
                    1000 * statistics.median(outcome.firsts),
                    n=len(requests),
                    note=f"{rate:.2f} requests/s; to first token {percentiles(outcome.firsts)} ms (p50 / p99), "
                    f"between tokens {percentiles(outcome.gaps)} ms",
                )
            )
    return rows


PARTS: Mapping[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "activation": activation,
    "many": many,
    "switching": switching,
    "held": held,
    "rounded": rounded,
}
"""What can be measured by itself."""


async def run(bench: Bench, keep: Callable[[list[Row]], None], chosen: Sequence[str] = ()) -> list[Row]:
    """All rows, or those of the chosen parts; `keep` gets those that there are after each part."""
    rows: list[Row] = []
    if not chosen:
        rows, saturation = await throughput(bench)
        keep(rows)
        rows += await latency(bench, saturation)
    for name in chosen or PARTS:
        keep(rows)
        rows += await PARTS[name](bench)
    return rows


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--part", action="append", choices=PARTS, default=[], help="measure this alone; several times")
    arguments = parser.parse_args()
    model = prepare_base_model(Home.open(default_home()).models).path

    def keep(rows: list[Row]) -> None:
        emit(rows, arguments.json, out=lambda _: None)

    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder) / "home") as fleet:
        fleet.start([])
        bench = Bench(fleet, model, Path(folder), Effort.of(arguments.quick))
        rows = asyncio.run(run(bench, keep, arguments.part))
    emit(rows, arguments.json)


if __name__ == "__main__":
    main()
