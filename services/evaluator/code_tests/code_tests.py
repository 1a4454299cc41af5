"""The tests of a sample on an answer's code: passed or not, and pass@k over several answers."""

from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.evaluator.answer_metrics.measured import Measured
from services.evaluator.code_tests.code_settings import CodeSettings
from services.evaluator.domain import EvaluationFailure
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.sandbox import sandbox
from services.evaluator.sandbox.sandbox import Limits, Stopped

RULE = "tests: run to their end"
"""What a failing answer breaks, as reports name it."""
REMEMBERED = 1024
"""Outcomes kept, since judge and metrics look at the same answer."""
IMPORT_SECONDS = 60.0
"""That the tests of one import may take with their expected outputs."""
_HARNESS = Path(__file__).with_name("harness.py")
_BLOCK = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)^[ \t]*```[ \t]*$", re.S | re.M | re.I)


@dataclass(frozen=True)
class CodeRun:
    """Whether the tests passed, and if not, why."""

    passed: bool
    why: str = ""


class CodeTests:
    """Runs tests where programs can be confined, and nowhere else."""

    def __init__(self, settings: CodeSettings, unavailable: str) -> None:
        """unavailable: why programs cannot be confined here (`sandbox.why_unavailable`), or empty."""
        self.settings = settings
        self.unavailable = unavailable
        self._places = asyncio.Semaphore(settings.at_once)
        self._known: OrderedDict[tuple[str, str], CodeRun] = OrderedDict()

    def refusal(self) -> str:
        """Why samples with tests are refused here, or empty."""
        return (
            f"tests: code cannot be confined on this machine, so none is run: {self.unavailable}"
            if self.unavailable
            else ""
        )

    async def run(self, sample: GoldenSample, answer: str) -> CodeRun | None:
        """What the sample's tests make of the answer; None for a sample without. Raises EvaluationFailure."""
        if not sample.tests:
            return None
        if refusal := self.refusal():
            raise EvaluationFailure(refusal)
        key = (sample.tests, answer)
        if key not in self._known:
            async with self._places:
                self._known[key] = await self._run(sample.tests, code_of(answer))
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]

    async def measure(
        self, sample: GoldenSample, answer: str, draw: Callable[[int], Awaitable[str]]
    ) -> dict[str, Measured]:
        """`pass_at_k` of the judged answer, or of answers that `draw` gets by their number, from 0."""
        if not sample.tests:
            return {}
        wanted = self.settings.answers
        answers = [answer] if wanted == 1 else [await draw(number) for number in range(wanted)]
        runs = [await self.run(sample, one) for one in answers]
        passed = sum(run is not None and run.passed for run in runs)
        return {f"pass_at_{k}": Measured(pass_at(k, len(runs), passed)) for k in self.settings.pass_at}

    async def _run(self, tests: str, code: str) -> CodeRun:
        token = secrets.token_hex(16)
        order = json.dumps({"code": code, "tests": tests, "token": token}).encode()
        limits = Limits(seconds=self.settings.seconds, memory_mb=self.settings.memory_mb)
        reads = (*sandbox.interpreter_folders(), str(_HARNESS))
        try:
            ended = await sandbox.run([sys.executable, "-I", "-S", str(_HARNESS)], order, limits, reads)
        except Stopped as limit:
            return CodeRun(False, str(limit))
        try:
            found = json.loads(ended.output)
            fault, given = str(found.get("fault", "")), found.get("token")
        except (ValueError, AttributeError):
            fault, given = f"the interpreter ended early, with status {ended.status}", None
        return CodeRun(True) if given == token else CodeRun(False, fault or "ended before the last test")


async def first_fault(tests: CodeTests, samples: Sequence[GoldenSample]) -> str:
    """Why samples cannot be taken: tests that cannot be run here, or that their own expected output fails; or empty."""
    with_tests = [sample for sample in samples if sample.tests]
    if with_tests and (refusal := tests.refusal()):
        return refusal
    until = time.monotonic() + IMPORT_SECONDS
    for sample in with_tests:
        if time.monotonic() > until:
            return (
                f"tests: those up to {sample.sample_id} take longer than {IMPORT_SECONDS:g} s; send the lines in parts"
            )
        run = await tests.run(sample, sample.expected_output)
        if run is not None and not run.passed:
            return f"tests of {sample.sample_id}: the expected output itself fails: {run.why}"
    return ""


def code_of(answer: str) -> str:
    """The answer's fenced blocks of Python, joined; the whole answer where it has none."""
    blocks = _BLOCK.findall(answer)
    return "\n".join(blocks) if blocks else answer


def pass_at(k: int, answers: int, passed: int) -> float:
    """Chance that at least one of k answers passes, without bias: 1 - C(n - c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv:2107.03374), section 2.1.
    """
    return 1.0 - math.comb(answers - passed, k) / math.comb(answers, k)
