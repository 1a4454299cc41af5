"""Answers that are code: a sample's tests decide them, in the sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.evaluator.code_tests.code_settings import CodeSettings
from services.evaluator.code_tests.code_tests import CodeTests, code_of, first_fault, pass_at
from services.evaluator.domain import EvaluationFailure
from services.evaluator.golden.samples import BadLines, GoldenSample, read_jsonl, to_line
from services.evaluator.judging import reference_judge
from services.evaluator.judging.endpoint import JudgeEndpoint
from services.evaluator.judging.judge import with_tests
from services.evaluator.judging.judgement import Standing
from services.evaluator.judging.llm_judge import LLMJudge
from services.evaluator.judging.settings import JudgeSettings
from services.evaluator.judging.signals import Signals

ADD = GoldenSample(
    "s",
    "Write a function add(a, b) in Python.",
    "```python\ndef add(a, b):\n    return a + b\n```",
    tests="assert add(2, 3) == 5\nassert add('a', 'b') == 'ab'",
)
NOBODY: Any = None  # who would answer, if asked
TESTS = CodeTests(CodeSettings(seconds=3), "")


@pytest.mark.requirement("LA-3.2")
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ADD.expected_output, ""),
        ("Here it is:\n```py\ndef add(x, y):\n    total = x\n    return total + y\n```\nIt adds.", ""),
        ("add = lambda *args: args[0] + args[1]", ""),
        ("```python\ndef add(a, b):\n    return a - b\n```", "line 1 of the tests: AssertionError"),
        ("```python\ndef add(a, b) return a + b\n```", "the code: SyntaxError"),
        ("I cannot write code.", "the code: SyntaxError"),
        ("```python\nimport sys\nsys.exit(0)\n```", "line 2 of the code: SystemExit"),
        ("```python\nimport os\nos._exit(0)\n```", "the interpreter ended early, with status 0"),
        ('```python\nprint(\'{"token": "?"}\')\n```', "line 1 of the tests: NameError"),
        ("```python\ndef add(a, b):\n    while True: pass\n```", "did not end within 3 s"),
        ("```python\nimport socket\nsocket.socket()\n```", "line 2 of the code: PermissionError"),
    ],
)
async def test_code_passes_where_its_tests_run_to_their_end(answer: str, why: str) -> None:
    run = await TESTS.run(ADD, answer)
    assert run is not None
    assert (run.passed, run.why.startswith(why)) == (not why, True), run.why


async def test_a_sample_without_tests_has_no_outcome() -> None:
    assert await TESTS.run(GoldenSample("s", "Why?", "Because."), "So.") is None


def test_the_code_of_an_answer_is_its_python_blocks() -> None:
    assert code_of("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```\n```sh\nls\n```") == "x = 1\n\ny = 2\n"
    assert code_of("x = 1") == "x = 1"


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    assert pass_at(1, 4, 1) == 0.25
    assert pass_at(2, 4, 1) == 0.5
    assert pass_at(4, 4, 1) == 1.0
    assert pass_at(3, 10, 0) == 0.0
    assert pass_at(1, 1, 1) == 1.0


async def test_pass_at_k_draws_answers_and_counts_those_that_pass() -> None:
    drawn = [
        ADD.expected_output,
        "```python\ndef add(a, b): return 0\n```",
        "```python\nadd = max\n```",
        ADD.expected_output,
    ]

    async def draw(number: int) -> str:
        return drawn[number]

    tests = CodeTests(CodeSettings(answers=4, pass_at=(1, 2)), "")
    found = {name: one.value for name, one in (await tests.measure(ADD, "judged", draw)).items()}
    assert found == {"pass_at_1": 0.5, "pass_at_2": pytest.approx(1 - 1 / 6)}
    single = await TESTS.measure(ADD, ADD.expected_output, draw)
    assert {name: one.value for name, one in single.items()} == {"pass_at_1": 1.0}
    assert await TESTS.measure(GoldenSample("s", "Why?", "Because."), "So.", draw) == {}


def test_settings_refuse_a_k_above_the_answers() -> None:
    with pytest.raises(ValueError, match="pass_at: 5 is above answers"):
        CodeSettings(answers=4, pass_at=(5,))


def signals() -> Signals:
    """Embeddings that find nothing alike."""
    return Signals(0.1, 0.1, 0.1, (0.1,), None, None)


@pytest.mark.requirement("LA-3.2")
async def test_tests_decide_whatever_the_code_looks_like() -> None:
    other = "```python\nimport operator\nadd = operator.add\n```"
    right = reference_judge.judge(ADD, other, signals(), tested=True)
    assert (right.standing, right.why) == (Standing.DECIDED, "the tests pass")
    assert right.overall is not None
    assert right.overall >= 70
    near = ADD.expected_output.replace("+", "-")
    wrong = with_tests(reference_judge.judge(ADD, near, signals(), tested=False), await TESTS.run(ADD, near))
    assert wrong.standing is Standing.DECIDED
    assert wrong.overall is not None
    assert wrong.overall < 40
    assert wrong.vetoes == ("tests: run to their end (line 1 of the tests: AssertionError: )",)


async def test_a_language_model_is_not_asked_about_code_whose_tests_fail() -> None:
    settings = JudgeSettings(url="http://127.0.0.1:9/v1", model="nobody")
    endpoint = JudgeEndpoint("strict", settings, NOBODY)
    judge = LLMJudge("strict", settings, endpoint, TESTS)
    near = ADD.expected_output.replace("+", "-")
    found = (await judge.judge(ADD, ADD.prompt, near, NOBODY)).judgement
    assert (found.standing, found.vetoes) == (
        Standing.DECIDED,
        ("tests: run to their end (line 1 of the tests: AssertionError: )",),
    )
    assert found.overall is not None
    assert found.overall < 40


async def test_an_import_refuses_tests_that_fail_on_their_own_expected_output() -> None:
    assert await first_fault(TESTS, [ADD]) == ""
    broken = GoldenSample("s9", "?", "```python\nx = 1\n```", tests="assert x == 2")
    assert await first_fault(TESTS, [ADD, broken]) == (
        "tests of s9: the expected output itself fails: line 1 of the tests: AssertionError: "
    )


async def test_without_confinement_no_code_is_run_and_the_reason_named() -> None:
    nowhere = CodeTests(CodeSettings(), "the kernel has no Landlock")
    assert "the kernel has no Landlock" in await first_fault(nowhere, [ADD])
    assert await first_fault(nowhere, [GoldenSample("s", "Why?", "Because.")]) == ""
    with pytest.raises(EvaluationFailure, match="code cannot be confined on this machine"):
        await nowhere.run(ADD, ADD.expected_output)


def test_tests_are_read_from_and_written_to_lines() -> None:
    line = {"prompt": "Add", "expected_output": "x = 1", "tests": "assert x == 1"}
    (read,) = read_jsonl(json.dumps(line), "shop")
    assert read.tests == "assert x == 1"
    assert json.loads(to_line(read))["tests"] == "assert x == 1"
    assert "tests" not in json.loads(to_line(GoldenSample("s", "Why?", "Because.")))
    with pytest.raises(BadLines, match="field tests: is no Python"):
        read_jsonl(json.dumps(line | {"tests": "assert x =="}), "shop")
    with pytest.raises(BadLines, match="field tests: tests nothing"):
        read_jsonl(json.dumps(line | {"tests": "# later"}), "shop")
