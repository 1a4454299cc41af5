"""What streams that are held open and wait for their turn cost those that are answered."""

import asyncio
from collections.abc import Sequence

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.report import Row
from benchmarks.serving_load import LoadRequest, Outcome, load
from benchmarks.serving_plan import QUESTIONS, Bench
from benchmarks.serving_stage import Stage, stage

ACTIVE = 4
OPENING = 12.0  # seconds until all streams are open; what comes between tokens is counted from then on
WITHIN_NOISE = 1.15


async def held(bench: Bench) -> list[Row]:
    """The time between tokens of 4 streams, alone and with many others that are open and wait; and the memory of it."""
    effort = bench.effort
    active = [LoadRequest("", QUESTIONS[n], max_tokens=effort.long_answer) for n in range(ACTIVE)]
    others = [LoadRequest("", QUESTIONS[2], at=1 + n * 6 / effort.streams, max_tokens=1) for n in range(effort.streams)]
    async with stage(bench.fleet, bench.model, batch_rows=str(ACTIVE), queue_limit=str(effort.streams + ACTIVE)) as at:
        await at.ready(at.base)
        alone, before = await _offered(at, active)
        beside, during = await _offered(at, [*active, *others])
    gaps, usual = _p99(beside), _p99(alone)
    waited = sum(one.first > OPENING for one in beside.answers[ACTIVE:] if one.ends)
    return [
        Row(
            f"between tokens of {ACTIVE} streams, p99, beside {effort.streams} that are open and wait",
            "ms",
            gaps,
            {"alone": usual},
            gaps / usual,
            ask=f"within noise: at most {WITHIN_NOISE} times",
            met=gaps <= WITHIN_NOISE * usual and not beside.failed,
            n=effort.streams,
            note=f"{len(beside.failed)} errors; {waited} of them waited over {OPENING:g} s; "
            f"resident memory {before / 1e6:.0f} MB alone, at most {during / 1e6:.0f} MB with them "
            f"({(during - before) / effort.streams / 1e3:.0f} KB each)",
        )
    ]


def _p99(outcome: Outcome) -> float:
    """Of the active streams, milliseconds."""
    pairs = (zip(one.ends, one.ends[1:], strict=False) for one in outcome.answers[:ACTIVE])
    gaps = [later - earlier for one in pairs for earlier, later in one if earlier > OPENING]
    if not gaps:
        raise RuntimeError(f"no stream was answered for longer than {OPENING:g} s: give it more tokens")
    return 1000 * float(np.percentile(gaps, 99))


async def _offered(at: Stage, requests: Sequence[LoadRequest]) -> tuple[Outcome, int]:
    """The outcome, and the most resident memory that the process was seen with, bytes."""
    named = [LoadRequest(at.base, one.prompt, one.at, one.max_tokens) for one in requests]
    offering = asyncio.create_task(asyncio.to_thread(load, at.service.url, at.token, named, 1))
    most = 0
    while not offering.done():
        most = max(most, _resident(at.service.process.pid))
        await asyncio.wait([offering], timeout=0.25)
    return await offering, most


def _resident(pid: int | None) -> int:
    size: int = psutil.Process(pid).memory_info().rss
    return size
