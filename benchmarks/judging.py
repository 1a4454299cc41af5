"""Whether the measurement of judges is right: `python -m benchmarks.judging [--quick] [--json FILE]`.

LLMBar (Zeng et al. 2024, https://github.com/princeton-nlp/LLMBar, MIT) has instructions with two outputs, of which one
is objectively better. Its `natural.json` is read from the folder that LORAFLEET_LLMBAR names; without it nothing is
measured. Judges of known skill and bias, scripted behind the chat completions API, compare each pair in both orders
through the evaluator's own client, with busy endpoints and broken answers among them. What is measured has to be what
the script did.

LORAFLEET_BENCH_JUDGE={"url": ..., "model": ...} (the fields of LORAFLEET_JUDGES) measures a real one too.
"""

import asyncio
import hashlib
import json
import os
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from benchmarks.report import Row, emit, options
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.ledger import Exchange, Spent
from services.evaluator.judging.pairwise import Pair, Preference, preference
from services.evaluator.judging.pairwise_judge import PairwiseJudge
from services.evaluator.judging.settings import JudgeSettings

SEED = 29
FAULTS = 0.1
"""Part of the requests that the script answers with 429, and of those that it answers with half a verdict."""


@dataclass(frozen=True)
class Duel:
    """An instruction with the better and the worse output."""

    instruction: str
    better: str
    worse: str


def read_llmbar(folder: Path) -> list[Duel]:
    """The pairs of `natural.json`, in its order."""
    rows = json.loads((folder / "natural.json").read_text())
    return [Duel(row["input"], row[f"output_{row['label']}"], row[f"output_{3 - row['label']}"]) for row in rows]


@dataclass(frozen=True)
class Script:
    """Prefers the better output with this chance, and the first place with that chance for any content."""

    skill: float
    first: float

    def prefers_first(self, duel: Duel, better_first: bool) -> bool:
        """The same for the same pair and order, at every call."""
        draw = random.Random(f"{SEED} {self} {better_first} {duel.instruction} {duel.better}")
        if draw.random() < self.first:
            return True
        return (draw.random() < self.skill) is better_first

    def truth(self, duels: Sequence[Duel]) -> tuple[float, float, float]:
        """Win rate of the better outputs, consistency and position bias, from the script itself."""
        wins = same = bias = 0.0
        for duel in duels:
            first, second = self.prefers_first(duel, True), self.prefers_first(duel, False)
            right = (first, not second)
            wins += 1.0 if all(right) else 0.5 if any(right) else 0.0
            same += right[0] is right[1]
            bias += (int(first) + int(second)) - 1
        return wins / len(duels), same / len(duels), bias / len(duels)


class MemoryLedger:
    """Exchanges of one measurement."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    async def recall(self, request: bytes) -> bytes | None:
        return self.kept.get(request)

    async def keep(self, exchange: Exchange) -> None:
        self.kept[exchange.request] = exchange.answer

    async def spent(self) -> Spent:
        return Spent()


async def measure(duels: Sequence[Duel], settings: JudgeSettings) -> tuple[Preference | None, int]:
    """The better outputs as the new version's, the worse as the old one's; and the pairs without a verdict."""
    async with httpx.AsyncClient() as http:
        judge = PairwiseJudge("bench", settings, JudgeEndpoint("bench", settings, http))

        async def one(number: int, duel: Duel) -> Pair | None:
            sample = GoldenSample(f"llmbar-{number}", duel.instruction, "")
            pair, _ = await judge.compare(sample, duel.instruction, duel.better, duel.worse, MemoryLedger())
            return pair

        found = await asyncio.gather(*(one(number, duel) for number, duel in enumerate(duels)))
    pairs = [pair for pair in found if pair]
    return preference(pairs, len(found) - len(pairs), 0.95), len(found) - len(pairs)


@contextmanager
def scripted(script: Script, duels: Sequence[Duel]) -> Iterator[str]:
    """The chat completions endpoint of a scripted judge on a free loopback port; yields its URL."""
    seen: set[str] = set()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, text = _answer(script, duels, body["messages"][1]["content"], self._fault(body))
            content = json.dumps(
                {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
                if status == 200
                else {"error": {"message": "busy", "code": "rate_limit_exceeded"}}
            ).encode()
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _fault(self, body: object) -> float:
            """A number that chooses the fault of a request; the same request is not at fault twice."""
            key = json.dumps(body, sort_keys=True)
            with lock:
                if key in seen:
                    return 1.0
                seen.add(key)
            return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def _answer(script: Script, duels: Sequence[Duel], prompt: str, fault: float) -> tuple[int, str]:
    if fault < FAULTS:
        return 429, ""
    first = prompt.partition("FIRST ANSWER:\n")[2]
    duel = next(d for d in duels if d.instruction in prompt and d.better in prompt and d.worse in prompt)
    better_first = first.partition("\n")[2].startswith(duel.better + "\nMARK ")
    preferred = "first" if script.prefers_first(duel, better_first) else "second"
    canary = int(prompt.partition("CANARY: ")[2].partition("\n")[0])
    text = json.dumps({"reason": "scripted", "canary": canary, "preferred": preferred})
    return 200, text[:20] if fault < 2 * FAULTS else text


def rows_of(what: str, found: Preference, truth: tuple[float, float, float] | None, missing: int) -> list[Row]:
    """Three figures of one judge; beside them those of the script, which ours have to equal."""
    figures = {
        "win rate of the better output": found.win_rate.value,
        "consistency of the orders": found.consistency,
        "position bias": found.position_bias,
    }
    note = f"{missing} pairs without a verdict" if missing else ""
    if truth is None:
        return [Row(f"{what}: {name}", "", ours, n=found.samples, note=note) for name, ours in figures.items()]
    return [
        Row(
            f"{what}: {name}",
            "",
            ours,
            {"the script": true},
            ask="the script's",
            met=abs(ours - true) < 1e-9,
            n=found.samples,
            note=note,
        )
        for (name, ours), true in zip(figures.items(), truth, strict=True)
    ]


SCRIPTS: dict[str, Script] = {
    "LLMBar, a perfect judge": Script(1.0, 0.0),
    "LLMBar, a judge of skill 0.8": Script(0.8, 0.0),
    "LLMBar, skill 0.8, prefers the first place in 0.3": Script(0.8, 0.3),
    "LLMBar, a judge that always prefers the first place": Script(0.5, 1.0),
}


def scripted_settings(url: str) -> JudgeSettings:
    """How a scripted judge is called."""
    return JudgeSettings(url=url, model="scripted", concurrency=8)


def main(arguments: list[str] | None = None) -> int:
    chosen = options(str(__doc__), arguments)
    folder = os.environ.get("LORAFLEET_LLMBAR", "")
    if not folder:
        note = "not measured: LORAFLEET_LLMBAR names no folder with natural.json"
        emit([Row("LLMBar", "", None, note=note)], chosen.json)
        return 0
    duels = read_llmbar(Path(folder))[: 12 if chosen.quick else None]
    rows: list[Row] = []
    for what, script in SCRIPTS.items():
        with scripted(script, duels) as url:
            found, missing = asyncio.run(measure(duels, scripted_settings(url)))
        assert found is not None
        rows += rows_of(what, found, script.truth(duels), missing)
    if real := os.environ.get("LORAFLEET_BENCH_JUDGE"):
        settings = JudgeSettings.model_validate_json(real)
        found, missing = asyncio.run(measure(duels, settings))
        if found is not None:
            rows += rows_of(f"LLMBar, {settings.model}", found, None, missing)
    emit(rows, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
