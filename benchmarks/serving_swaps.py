"""What loading, evicting and switching adapters costs while others are served."""

import asyncio
import statistics
import time

import numpy as np

from benchmarks.report import Row, Samples
from benchmarks.serving_load import LoadRequest, load
from benchmarks.serving_plan import Bench, arrivals, offered, percentiles
from benchmarks.serving_stage import ask, card, first_token, stage

ALPHA = 1.1  # Zipf's exponent


async def activation(bench: Bench) -> list[Row]:
    """From the event, or from the request, to the first token, the adapter being ever nearer."""
    cold, disk, memory, base = [], [], [], []
    async with stage(bench.fleet, bench.model) as at:
        await at.ready(at.base)
        for number in range(bench.effort.activations):
            adapter = at.adapter(await at.store(card(bench.model, 100 + number)), f"cold{number}")
            begun = time.perf_counter()
            await at.activate(adapter)
            await first_token(at, adapter.adapter_id)
            cold.append(time.perf_counter() - begun)
            await at.evict(adapter)
            disk.append(await first_token(at, adapter.adapter_id))
            memory.append(await first_token(at, adapter.adapter_id))
            base.append(await first_token(at, at.base))
    own, near = 1000 * statistics.median(base), 1000 * statistics.median(memory)
    rows = []
    for what, seen, limit in (
        ("AdapterActivated → first token, adapter cold in S3", cold, 150),
        ("request → first token, adapter in the disk cache", disk, 50),
        ("request → first token, adapter in memory", memory, None),
    ):
        samples = Samples(tuple(1000 * value for value in seen))
        rows.append(
            Row(
                what,
                "ms",
                samples.median,
                {"the base model's first token": own, "adapter in memory": near},
                samples.median / near,
                ask=None if limit is None else f"at most {limit} beyond one in memory",
                met=None if limit is None else samples.median - near <= limit,
                n=len(seen),
                spread=samples.spread,
                note=f"{samples.median - near:.0f} ms beyond one in memory, "
                f"{samples.median - own:.0f} ms beyond the base model",
            )
        )
    return rows


async def many(bench: Bench) -> list[Row]:
    """Far more adapters than slots, picked by Zipf's law, beside the same load on adapters that are all loaded.

    The load is 80 % of what the loaded ones take of this mix: with 16 slots that is less than with 8, and a load that
    both sides can only queue would compare queues.
    """
    effort = bench.effort
    async with stage(
        bench.fleet,
        bench.model,
        slots=str(effort.slots),
        batch_rows=str(bench.effort.rows),
        queue_limit="400",
    ) as at:
        adapters = []
        for number in range(effort.known):
            adapters.append(at.adapter(await at.store(card(bench.model, number, rank=8)), f"z{number}"))
            await at.activate(adapters[-1])
        await at.ready(adapters[-1].adapter_id)
        names = [one.adapter_id for one in adapters]
        loaded = {name: names[place % effort.slots] for place, name in enumerate(names)}
        for name in names[: effort.slots]:
            await at.ready(name)
        at_once = arrivals(names, effort.rows, 2, seed=3, zipf=ALPHA)
        burst = [LoadRequest(loaded[request.model], request.prompt) for request in at_once]
        saturation = statistics.median(
            [(await offered(at, burst, effort.tokens)).tokens_per_second for _ in range(effort.rounds)]
        )
        rate = 0.8 * saturation / effort.tokens
        requests = arrivals(names, rate, effort.seconds, seed=2, zipf=ALPHA)
        few = [LoadRequest(loaded[request.model], request.prompt, request.at) for request in requests]
        here = await offered(at, few, effort.tokens)
        before = await at.metric("lorafleet_inference_adapter_loads_total")
        begun = time.perf_counter()
        swapped = await asyncio.to_thread(load, at.service.url, at.token, requests, effort.tokens)
        swaps = (await at.metric("lorafleet_inference_adapter_loads_total") - before) / (time.perf_counter() - begun)
    lost = 100 * (1 - swapped.tokens_per_second / here.tokens_per_second)
    slower = float(np.percentile(swapped.firsts, 99) / np.percentile(here.firsts, 99))
    return [
        Row(
            f"{effort.known} adapters on {effort.slots} slots, Zipf {ALPHA}: tokens/s lost against all loaded",
            "%",
            lost,
            {"tokens/s, all loaded": here.tokens_per_second, "the same mix at once, all loaded": saturation},
            ask="at most 5, no error, p99 of first tokens at most twice as long",
            met=lost <= 5 and not swapped.failed and slower <= 2,
            n=len(requests),
            note=f"{len(swapped.failed)} errors; {swapped.tokens_per_second:.1f} tokens/s at {rate:.2f} requests/s, "
            f"{swaps:.2f} swaps/s; to first token {percentiles(swapped.firsts)} ms (p50 / p99), "
            f"all loaded {percentiles(here.firsts)} ms, p99 {slower:.1f} times as long; "
            f"{len({one.model for one in requests})} adapters requested",
        )
    ]


async def switching(bench: Bench) -> list[Row]:
    """A family changes its version again and again under load: each answer is of one version, the one that it names."""
    effort = bench.effort
    tokens, every = 16, 0.4
    async with stage(bench.fleet, bench.model, batch_rows="8", slots="6", queue_limit="400") as at:
        artifacts = [await at.store(card(bench.model, number)) for number in (0, 1)]
        versions = [
            at.adapter(artifacts[number % 2], "switched", f"{number + 1}.0.0") for number in range(effort.switches + 2)
        ]
        expected = []
        for adapter in versions[:2]:
            await at.activate(adapter)
            await at.ready(adapter.adapter_id)
            answer = await at.client.post("/v1/completions", json=ask(adapter.family, tokens))
            expected.append(answer.json()["choices"][0]["text"])
        if expected[0] == expected[1]:
            raise RuntimeError("both versions answer alike: nothing would be shown")
        prompt = str(ask("")["prompt"])
        requests = [
            LoadRequest("switched-lora", prompt, at=0.25 * n) for n in range(int(effort.switches * every / 0.25) + 4)
        ]
        loading = asyncio.create_task(asyncio.to_thread(load, at.service.url, at.token, requests, tokens))
        for adapter in versions[2:]:
            await asyncio.sleep(every)
            await at.activate(adapter)
        outcome = await loading
    place = {adapter.adapter_id: number % 2 for number, adapter in enumerate(versions)}
    mixed = [
        one
        for one in outcome.answers
        if one.status == 200 and (one.adapter_id not in place or one.text != expected[place[one.adapter_id]])
    ]
    bad = len(outcome.failed) + len(mixed)
    answered = len({one.adapter_id for one in outcome.answers})
    return [
        Row(
            f"version switch under load, {effort.switches} times: failed or mixed answers",
            "answers",
            bad,
            ask="0",
            met=bad == 0,
            n=len(outcome.answers),
            note=f"{len(outcome.failed)} failed, {len(mixed)} mixed; {answered} versions answered",
        )
    ]
