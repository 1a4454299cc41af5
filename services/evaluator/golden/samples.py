"""Golden samples and their JSONL form. Pure: text in, samples or named errors out, and back without loss."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fleet_events.strict_json import read_json
from services.evaluator.judging.criteria import Criterion, UnknownRule, parse, parse_stored, scored, steps
from services.evaluator.judging.rules import Rule

MAX_LINE = 64_000  # characters of one sample
MAX_SAMPLES = 5_000  # of one data set version
MAX_TURNS = 64  # before the question of one sample
MAX_ERRORS = 1_000  # bad lines and fields of one import; reading ends there
MAX_STEPS = 1_000_000_000  # comparisons of one import's rules with its expected outputs: about a minute at worst
Difficulty = Literal["easy", "medium", "hard"]
ContextUse = Literal["note", "prompt"]
"""What a data set does with its samples' context: a note for people and judges, or text put before the prompt."""


@dataclass(frozen=True)
class Turn:
    """One earlier message of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class GoldenSample:
    """One question with the answer that is wanted. expected_score is what the expected output is worth, 0 to 1.

    `history` has the turns before the question, from the user's first to an assistant's last. `tests` is Python that
    has to run to its end behind the answer's code, in one namespace.
    """

    sample_id: str
    prompt: str
    expected_output: str
    expected_score: float = 1.0
    difficulty: Difficulty = "medium"
    criteria: Mapping[str, str] = field(default_factory=dict)
    context: str = ""
    system: str = ""
    history: tuple[Turn, ...] = ()
    tests: str = ""
    subject: str = ""
    """The person whom it is about, for `lorafleet data forget`; no part of what is prompted and judged."""

    @property
    def rules(self) -> dict[Criterion, tuple[Rule, ...]]:
        """The rules of `criteria`; one that is refused by now never holds."""
        return parse_stored(self.criteria)

    def question(self, use: ContextUse) -> str:
        """The question to the model."""
        return f"{self.context}\n\n{self.prompt}" if use == "prompt" and self.context else self.prompt

    def messages(self, use: ContextUse) -> list[dict[str, str]]:
        """All that the model is given: system prompt, earlier turns, question."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        turns = [{"role": turn.role, "content": turn.content} for turn in self.history]
        return [*head, *turns, {"role": "user", "content": self.question(use)}]

    @property
    def transcript(self) -> str:
        """The earlier turns, each after its role; empty for a single question."""
        return "\n".join(f"{turn.role}: {turn.content}" for turn in self.history)


@dataclass(frozen=True)
class LineError:
    """One thing wrong with an import: which line (from 1), which field, what would be right."""

    line: int
    field: str
    detail: str


class BadLines(ValueError):
    """An import that was refused as a whole, with every bad line."""

    def __init__(self, errors: Sequence[LineError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"line {first.line}, field {first.field}: {first.detail}{more}")
        self.errors = tuple(errors)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1)


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sample_id: str = Field("", max_length=200, pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._:-]*)?$")
    prompt: str = Field(min_length=1)
    expected_output: str = Field(min_length=1)
    expected_score: float = Field(1.0, ge=0, le=1)
    difficulty: Difficulty = "medium"
    criteria: dict[str, str] = Field(default_factory=dict)
    context: str = ""
    system: str = ""
    history: list[_Turn] = Field(default_factory=list, max_length=MAX_TURNS)
    tests: str = ""
    subject: str = Field("", max_length=512)
    domain: str | None = None  # accepted for convenience; must be the data set's


def read_jsonl(text: str, domain: str) -> list[GoldenSample]:
    """The samples of a JSONL text, one object a line, blank lines aside.

    Raises BadLines with every bad line and field: no JSON, a wrong type or value, an unknown field or rule, an
    expected output that breaks its sample's own rules, a repeated sample id, or a foreign domain. Blocking, for up to a
    minute: call it in a thread.
    """
    samples: dict[str, GoldenSample] = {}
    first_seen: dict[str, int] = {}
    errors: list[LineError] = []
    work = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if len(samples) >= MAX_SAMPLES:
            errors.append(LineError(number, "(body)", f"more than {MAX_SAMPLES} samples; send them in parts"))
            break
        found, cost = _sample(number, line, domain)
        work += cost
        if work > MAX_STEPS:
            errors.append(LineError(number, "criteria", "the rules up to here take too long; send the lines in parts"))
            break
        if not isinstance(found, GoldenSample):
            errors.extend(found)
            if len(errors) >= MAX_ERRORS:
                break
            continue
        if found.sample_id in samples:
            detail = f"{found.sample_id!r} is in line {first_seen[found.sample_id]} already"
            errors.append(LineError(number, "sample_id", detail))
        samples[found.sample_id] = found
        first_seen.setdefault(found.sample_id, number)
    if not samples and not errors:
        errors.append(LineError(1, "(body)", "holds no sample; send one JSON object a line"))
    if errors:
        raise BadLines(errors)
    return list(samples.values())


def _sample(number: int, line: str, domain: str) -> tuple[GoldenSample | list[LineError], int]:
    """The sample or what is wrong with it, and the steps that its rules took."""
    if len(line) > MAX_LINE:
        return [LineError(number, "(line)", f"{len(line)} characters; at most {MAX_LINE}")], 0
    try:
        raw = _Line.model_validate_json(line)
    except ValidationError as error:
        return [
            LineError(number, ".".join(map(str, e["loc"])) or "(line)", f"{e['msg']}, got {_short(e['input'])}")
            for e in error.errors()
        ], 0
    try:
        read_json(line)
    except ValueError as error:
        return [LineError(number, str(error).partition(":")[0], str(error))], 0
    errors = [
        LineError(number, name, "is blank") for name in ("prompt", "expected_output") if not getattr(raw, name).strip()
    ]
    if raw.domain not in (None, domain):
        errors.append(LineError(number, "domain", f"{raw.domain!r}, but the data set's domain is {domain!r}"))
    errors += _history_errors(number, raw.history)
    errors += _test_errors(number, raw.tests)
    broken, cost = _rule_errors(number, raw.criteria, raw.expected_output)
    errors += broken
    if errors:
        return errors, cost
    history = tuple(Turn(turn.role, turn.content) for turn in raw.history)
    before = "".join(f"{turn.role}: {turn.content}\n" for turn in history)
    named = f"{before}{raw.context}\n{raw.prompt}".encode()
    sample_id = raw.sample_id or "s-" + hashlib.sha256(named).hexdigest()[:12]
    sample = GoldenSample(
        sample_id=sample_id,
        prompt=raw.prompt,
        expected_output=raw.expected_output,
        expected_score=raw.expected_score,
        difficulty=raw.difficulty,
        criteria=raw.criteria,
        context=raw.context,
        system=raw.system,
        history=history,
        tests=raw.tests,
        subject=raw.subject,
    )
    return sample, cost


def _history_errors(number: int, history: Sequence[_Turn]) -> list[LineError]:
    for place, turn in enumerate(history):
        if turn.role != ("user", "assistant")[place % 2]:
            detail = f"{turn.role!r}; turns alternate, from the user's first to the assistant's last"
            return [LineError(number, f"history.{place}.role", detail)]
    if len(history) % 2:
        return [LineError(number, "history", "ends with the user; the question itself goes into `prompt`")]
    return []


def _test_errors(number: int, tests: str) -> list[LineError]:
    if not tests:
        return []
    try:
        parsed = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [LineError(number, "tests", f"is no Python: {error}")]
    return (
        [] if parsed.body else [LineError(number, "tests", "tests nothing; write for example `assert add(1, 2) == 3`")]
    )


def _rule_errors(number: int, criteria: Mapping[str, str], expected: str) -> tuple[list[LineError], int]:
    try:
        rules = parse(criteria)
    except UnknownRule as error:
        return [LineError(number, error.field, f"{error.rule!r}: {error.why}")], 0
    broken = [
        LineError(number, f"criteria.{criterion}", f"the expected output itself breaks {rule.text!r}")
        for criterion, of_it in rules.items()
        for rule in scored(of_it)
        if not rule.holds(expected)
    ]
    return broken, sum(steps(of_it, expected) for of_it in rules.values())


def _short(value: JsonValue | object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def to_line(sample: GoldenSample) -> str:
    """Canonical JSON of a sample: fixed field order, UTF-8 as it is.

    `system`, `history`, `tests` and `subject` are there only where they hold something: content from before they
    existed keeps its digest.
    """
    turns = [{"role": turn.role, "content": turn.content} for turn in sample.history]
    return json.dumps(
        {
            "sample_id": sample.sample_id,
            "prompt": sample.prompt,
            "expected_output": sample.expected_output,
            "expected_score": float(sample.expected_score),
            "difficulty": sample.difficulty,
            "criteria": dict(sorted(sample.criteria.items())),
            "context": sample.context,
            **({"system": sample.system} if sample.system else {}),
            **({"history": turns} if turns else {}),
            **({"tests": sample.tests} if sample.tests else {}),
            **({"subject": sample.subject} if sample.subject else {}),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def write_jsonl(samples: Iterable[GoldenSample]) -> str:
    """The JSONL that `read_jsonl` reads back into equal samples."""
    return "".join(to_line(sample) + "\n" for sample in samples)


def digest(samples: Iterable[GoldenSample], use: ContextUse = "note") -> str:
    """sha256 of what is prompted and judged: how the context is used, then the canonical lines sorted by sample id.

    The same samples in any order are the same content.
    """
    ordered = (replace(one, subject="") for one in sorted(samples, key=lambda sample: sample.sample_id))
    return hashlib.sha256(f"context={use}\n{write_jsonl(ordered)}".encode()).hexdigest()


def merge(present: Sequence[GoldenSample], added: Iterable[GoldenSample]) -> list[GoldenSample]:
    """The present samples with the added ones behind them; an added one takes the place of its id."""
    merged = {sample.sample_id: sample for sample in present}
    for sample in added:
        merged[sample.sample_id] = sample
    return list(merged.values())
