"""The rule syntax of golden samples: what an answer must and must not say, checkable without a language model.

A sample's `criteria` maps a criterion (accuracy, relevance, style, completeness, coherence) to one string of
rules. Rules are separated by `;` or a line break; their keywords are case-insensitive:

    Must mention P              the answer contains the phrase P. `Must cite P`, `Must name P`, `Must say P`,
                                `Must include P` and `Must state P` mean the same
    Must mention P | Q | R      ... any one of the phrases
    Must not mention P | Q      ... none of the phrases (also: cite, name, say, include, state)
    At least 2 of: P | Q | R    ... that many of the phrases
    Must start with P | Q       the answer starts (or ends) with one of the phrases, leading and trailing
    Must end with P | Q         punctuation and quotes aside
    Must equal P | Q            the answer is one of the texts, punctuation at its ends aside; nothing else settles more
    regex: PATTERN              Python regular expression, found anywhere in the answer, case-insensitive; without
                                lookaround, references to groups and atomic groups (linear_regex)
    not regex: PATTERN          ... found nowhere
    json schema: {...}          the answer is JSON of this schema as a whole (json_schema.py has what a schema may say)
    At most 40 words            length of the answer
    At least 5 words
    note: free text             for people and language-model judges; the reference judge does not score it

An answer that breaks a rule fails the sample (`is_must`), right elsewhere or not; rules on length alone lower their
criterion only.

A phrase is compared after Unicode normalisation, ignoring case, kinds of quote and dash, and white space, with
`1,200` = `1200`, `forty-five` = `45` and `§ 5` = `§5`, and as whole words: `45 days` is not in `145 days`. Put a
phrase into double quotes if it contains `;` or `|`. In a regular expression write `\\x3b` for `;`.

    {"accuracy": "Must cite §123 BauO; Must mention 14 days | two weeks; Must not mention 30 days",
     "completeness": "At least 2 of: site plan | statics | fire report", "style": "At most 60 words"}

Any other text is refused, and so is a sample whose own expected output breaks its rules (golden/samples.py checks
that): a vague wish such as "Must mention all required documents" is caught there, instead of failing every answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import linear_regex
from linear_regex import UnsuitablePattern
from services.evaluator.judging.json_schema import JsonSchema, UnsuitableSchema, Validator, compile_schema
from services.evaluator.judging.rules import Edge, Exact, Length, Note, Pattern, Phrases, Rule, Unreadable
from services.evaluator.judging.text import fold

MAX_RULES = 64  # of one criterion
MAX_EXPRESSIONS = 32  # regular expressions of one criterion
MAX_PHRASES = 256  # of one criterion, in all its rules


class Criterion(StrEnum):
    """The five judged criteria (LA-3.1), each scored 0–10."""

    ACCURACY = "accuracy"
    RELEVANCE = "relevance"
    STYLE = "style"
    COMPLETENESS = "completeness"
    COHERENCE = "coherence"


class UnknownRule(ValueError):
    """A rule the reference judge cannot check; the message gives it and what would be right."""

    def __init__(self, field: str, rule: str, why: str) -> None:
        super().__init__(f"{field}: {rule!r}: {why}")
        self.field, self.rule, self.why = field, rule, why


def parse(criteria: Mapping[str, str]) -> dict[Criterion, tuple[Rule, ...]]:
    """The rules of a sample by criterion, in the order written. Raises UnknownRule."""
    rules: dict[Criterion, tuple[Rule, ...]] = {}
    for name, text in criteria.items():
        if name not in list(Criterion):
            raise UnknownRule(f"criteria.{name}", text, f"unknown criterion; one of {', '.join(Criterion)}")
        clauses = [clause.strip() for clause in _split(text, ";\n") if clause.strip()]
        if not clauses:
            raise UnknownRule(f"criteria.{name}", text, "empty; leave the criterion out or write a rule")
        if len(clauses) > MAX_RULES:
            raise UnknownRule(f"criteria.{name}", text[:200], f"{len(clauses)} rules; at most {MAX_RULES}")
        rules[Criterion(name)] = tuple(_rule(f"criteria.{name}", clause) for clause in clauses)
        _check_sizes(f"criteria.{name}", text, rules[Criterion(name)])
    return rules


def parse_stored(criteria: Mapping[str, str]) -> dict[Criterion, tuple[Rule, ...]]:
    """The rules of a sample that was imported under the rules of its time. What is refused by now fails its sample."""
    rules: dict[Criterion, tuple[Rule, ...]] = {}
    for name, text in criteria.items():
        try:
            rules |= parse({name: text})
        except UnknownRule as error:
            criterion = Criterion(name) if name in list(Criterion) else Criterion.ACCURACY
            rules[criterion] = (*rules.get(criterion, ()), Unreadable(f"{error.rule} (refused: {error.why})"))
    return rules


def steps(rules: Sequence[Rule], answer: str) -> int:
    """What judging the answer by these rules costs, in comparisons of one character."""
    return len(answer) * sum(_steps(rule) for rule in rules)


def _steps(rule: Rule) -> int:
    match rule:
        case Pattern():
            return rule.expression.steps
        case JsonSchema():
            return rule.steps
        case Phrases() | Edge() | Exact():
            return 4 * len(rule.phrases)
        case _:
            return 4


def scored(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that count, without notes."""
    return tuple(rule for rule in rules if not isinstance(rule, Note))


def is_must(rule: Rule) -> bool:
    """Whether an answer that breaks the rule has failed, with any other content: all but those on length, and notes."""
    return not isinstance(rule, Length | Note)


def broken_musts(rules: Mapping[Criterion, Sequence[Rule]], answer: str) -> dict[Criterion, tuple[str, ...]]:
    """The must-rules that the answer breaks, as written, by criterion."""
    found = {
        criterion: tuple(rule.text for rule in of_it if is_must(rule) and not rule.holds(answer))
        for criterion, of_it in rules.items()
    }
    return {criterion: texts for criterion, texts in found.items() if texts}


def _check_sizes(field: str, text: str, rules: Sequence[Rule]) -> None:
    expressions = sum(isinstance(rule, Pattern) for rule in rules)
    if expressions > MAX_EXPRESSIONS:
        raise UnknownRule(field, text[:200], f"{expressions} regular expressions; at most {MAX_EXPRESSIONS}")
    phrases = sum(len(rule.phrases) for rule in rules if isinstance(rule, (Phrases, Edge, Exact)))
    if phrases > MAX_PHRASES:
        raise UnknownRule(field, text[:200], f"{phrases} phrases; at most {MAX_PHRASES}")


_VERB = r"(?:mention|cite|name|say|include|state)s?"
_MUST_NOT = re.compile(rf"must\s+not\s+{_VERB}\s+(.+)", re.I | re.S)
_MUST = re.compile(rf"must\s+{_VERB}\s+(.+)", re.I | re.S)
_AT_LEAST = re.compile(r"at\s+least\s+(\d+)\s+of:\s*(.+)", re.I | re.S)
_EQUAL = re.compile(r"must\s+equal\s+(.+)", re.I | re.S)
_EDGE = re.compile(r"must\s+(start|end)\s+with\s+(.+)", re.I | re.S)
_REGEX = re.compile(r"(not\s+)?regex:\s*(.+)", re.I | re.S)
_WORDS = re.compile(r"at\s+(least|most)\s+(\d+)\s+words?", re.I)
_SCHEMA = re.compile(r"json\s+schema:\s*(.+)", re.I | re.S)
_NOTE = re.compile(r"note:\s*\S", re.I)


def _rule(field: str, clause: str) -> Rule:  # noqa: PLR0911, one return a kind of rule
    if m := _MUST_NOT.fullmatch(clause):
        return Phrases(clause, _phrases(field, clause, m[1]), 0)
    if m := _MUST.fullmatch(clause):
        return Phrases(clause, _phrases(field, clause, m[1]), 1)
    if m := _AT_LEAST.fullmatch(clause):
        phrases, need = _phrases(field, clause, m[2]), int(m[1])
        if not 1 <= need <= len(phrases):
            raise UnknownRule(field, clause, f"asks for {need} of {len(phrases)} phrases")
        return Phrases(clause, phrases, need)
    if m := _EQUAL.fullmatch(clause):
        return Exact(clause, _phrases(field, clause, m[1]))
    if m := _EDGE.fullmatch(clause):
        return Edge(clause, _phrases(field, clause, m[2]), m[1].lower() == "end")
    if m := _REGEX.fullmatch(clause):
        return Pattern(clause, _expression(field, clause, m[2].strip()), m[1] is not None)
    if m := _WORDS.fullmatch(clause):
        return Length(clause, int(m[2]), None) if m[1].lower() == "least" else Length(clause, 0, int(m[2]))
    if m := _SCHEMA.fullmatch(clause):
        return JsonSchema(clause, *_schema(field, clause, m[1]))
    if _NOTE.match(clause):
        return Note(clause)
    raise UnknownRule(
        field,
        clause,
        "unknown rule; write `Must mention P | Q`, `Must not mention P`, `At least N of: P | Q`, "
        "`Must start with P`, `Must end with P`, `Must equal P`, `regex: X`, `not regex: X`, `json schema: {...}`, "
        "`At most N words`, `At least N words` or `note: free text`",
    )


def _phrases(field: str, clause: str, text: str) -> tuple[str, ...]:
    phrases = tuple(fold(part.strip().strip('"')) for part in _split(text, "|"))
    if not all(any(c.isalnum() for c in phrase) for phrase in phrases):
        raise UnknownRule(field, clause, "a phrase between `|` is empty")
    return phrases


def _expression(field: str, clause: str, pattern: str) -> linear_regex.Pattern:
    try:
        compiled = linear_regex.compile_pattern(pattern, ignore_case=True)
    except UnsuitablePattern as error:
        raise UnknownRule(field, clause, f"the expression is refused: {error}") from None
    if compiled.search(""):
        raise UnknownRule(field, clause, "matches the empty text, so it says nothing")
    return compiled


def _schema(field: str, clause: str, text: str) -> tuple[Validator, int]:
    try:
        return compile_schema(text)
    except UnsuitableSchema as error:
        raise UnknownRule(field, clause[:200], str(error)) from None


def _split(text: str, separators: str) -> list[str]:
    """Split at any of the separators outside double quotes."""
    parts, quoted = [""], False
    for char in text:
        quoted ^= char == '"'
        if char in separators and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts
