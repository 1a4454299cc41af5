"""The rule syntax of golden samples."""

from __future__ import annotations

import time

import pytest

from services.evaluator.judging.criteria import Criterion, UnknownRule, parse, parse_stored, scored

SCHEMA = (
    'json schema: {"type": "object", "required": ["days"], "additionalProperties": false, "properties":'
    ' {"days": {"type": "integer"}, "where": {"type": "string", "pattern": "^E-\\\\d{3}$"}}}'
)


def holds(rules: str, answer: str) -> bool:
    return all(rule.holds(answer) for rule in scored(parse({"accuracy": rules})[Criterion.ACCURACY]))


@pytest.mark.parametrize(
    ("rules", "answer", "right"),
    [
        ("Must cite §123 BauO", "nach § 123 BauO", True),
        ("must mention 45 days", "It is 145 days.", False),
        ("must mention 45 days", "It is forty-five days.", True),
        ("Must mention two weeks", "Within 2 weeks.", True),
        ("Must name 4.5", "It is 14.5", False),
        ("Must name 5", "It is 4.5.", False),
        ("Must name 5", "It is 5.", True),
        ("Must mention 1,200", "It costs 1200 euros", True),
        ("Must mention a | b", "only b here", True),
        ("Must mention a | b", "neither", False),
        ("Must not mention a | b", "only b here", False),
        ("Must not mention a | b", "nothing", True),
        ("At least 2 of: red | green | blue", "Red and blue.", True),
        ("At least 2 of: red | green | blue", "Red.", False),
        ("Must start with No", "No. Never.", True),
        ("Must start with No", "Nothing.", False),
        ("Must end with harbour | port", "Go to the port.", True),
        ("regex: E-\\d{3}", "see e-417", True),
        ("not regex: E-\\d{3}", "see E-417", False),
        ("At most 3 words", "one two three four", False),
        ("At least 3 words", "one two three", True),
        ("note: sounds friendly", "anything", True),
        ('Must mention "a; b | c"', "He says a; b | c.", True),
        ("Must mention a; Must mention b", "a", False),
        ("Must mention a\nMust mention b", "b then a", True),
        ("Must mention don't", "I don’t know", True),
        (SCHEMA, '{"days": 45, "where": "E-417"}', True),
        (SCHEMA, ' \n{"days": 45}\n', True),
        (SCHEMA, '{"days": "45"}', False),
        (SCHEMA, '{"days": 45, "where": "417"}', False),
        (SCHEMA, '{"days": 45, "why": "so"}', False),
        (SCHEMA, 'Here it is: {"days": 45}', False),
        (SCHEMA, '{"days": NaN}', False),
        (SCHEMA, "[" * 100_000, False),
        (SCHEMA, '{"days": 45, "where": "' + "E-417" * 10_000 + '"}', False),
        (f"{SCHEMA}; At most 3 words", '{"days": 45}', True),
    ],
)
def test_a_rule_holds_for_what_it_says(rules, answer, right):
    assert holds(rules, answer) is right


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ("be polite", "unknown rule"),
        ("Should mention x", "unknown rule"),
        ("Must mention", "unknown rule"),
        ("Must mention a | ", "empty"),
        ("At least 4 of: a | b", "asks for 4 of 2"),
        ("regex: (", "not a regular expression"),
        ("json schema: {", "is no JSON"),
        ('json schema: ["days"]', "a schema is an object"),
        ('json schema: {"type": "number of days"}', "type: "),
        ('json schema: {"$ref": "#"}', "does not take references"),
        ('json schema: {"properties": {"a": {"items": {"uniqueItems": true}}}}', "uniqueItems"),
        ('json schema: {"format": "date"}', "write a pattern"),
        ('json schema: {"pattern": "(?=a)b"}', "lookahead"),
        ('json schema: {"anyOf": [' + ", ".join(["{}"] * 300) + "]}", "at most 200"),
        ("regex: (?=a)b", "lookahead"),
        ("regex: (a)\\1", "reference to a group"),
        ("regex: x{1000}", "too large"),
        ("regex: a*", "matches the empty text"),
        ("regex: " + "a" * 401, "401 characters"),
        (" ; ", "empty"),
        ("Must mention a;" * 65, "65 rules; at most 64"),
        ("regex: a;" * 33, "33 regular expressions; at most 32"),
        ("Must mention " + "a|" * 256 + "a", "257 phrases; at most 256"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_the_field_and_the_reason(rules, why):
    with pytest.raises(UnknownRule, match=why) as refused:
        parse({"accuracy": rules})
    assert refused.value.field == "criteria.accuracy"


def test_an_unknown_criterion_is_refused_with_the_known_ones():
    with pytest.raises(UnknownRule, match="accuracy, relevance, style, completeness, coherence"):
        parse({"politeness": "Must mention please"})


def test_notes_do_not_count():
    rules = parse({"style": "note: warm tone; At most 5 words"})[Criterion.STYLE]
    assert [rule.text for rule in scored(rules)] == ["At most 5 words"]


HOSTILE = ["(a?){25}a{25}$", "(a+)+$", "(a|aa)+$", "(?:a{1,3}){1,40}b", "(.*a){20}b", "(x+x+)+y"]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_expression_searches_for_long(pattern):
    started = time.process_time()
    holds(f"regex: {pattern}", "a" * 7_999 + "!")
    assert time.process_time() - started < 2


def test_a_stored_rule_that_is_refused_by_now_fails_its_sample_alone():
    rules = parse_stored({"accuracy": r"regex: (?<=a)b; Must mention harbour", "style": "At most 9 words", "wit": "x"})
    assert [rule.holds("ab harbour") for rule in rules[Criterion.ACCURACY]] == [False, False]
    assert "lookbehind" in rules[Criterion.ACCURACY][0].text
    assert [rule.holds("ab harbour") for rule in rules[Criterion.STYLE]] == [True]
