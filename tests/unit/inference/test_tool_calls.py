"""Calls are written in the template's own form whatever the model's logits are, and read back as they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate

from services.inference.tool_calls.form import CallRules, Function, form_of
from services.inference.tool_calls.format import HERMES, LLAMA, MISTRAL, ToolFormat, of_template
from services.inference.tool_calls.reader import ArgumentsPart, CallBegins, CallReader, Part, TextPart
from tests.unit.lora_core.test_grammar import GRAMMARS, TOKENIZER, answer

pytestmark = pytest.mark.unit

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
WEATHER = Function("weather", CITY | {"additionalProperties": False})
CLOCK = Function("clock", {"type": "object", "properties": {}, "additionalProperties": False})
FORMATS = (HERMES, LLAMA, MISTRAL)


def read(text: str, written: ToolFormat, size: int = 10**6) -> tuple[str, list[tuple[str, Any]]]:
    """(text beside the calls, calls with their arguments) of an answer that comes in pieces of so many characters."""
    reader = CallReader(written)
    parts: list[Part] = []
    for at in range(0, len(text), size):
        parts += reader.feed(text[at : at + size])
    parts += reader.finish()
    beside = "".join(part.text for part in parts if isinstance(part, TextPart))
    names = [part.name for part in parts if isinstance(part, CallBegins)]
    arguments = [
        "".join(part.text for part in parts if isinstance(part, ArgumentsPart) and part.index == index)
        for index in range(len(names))
    ]
    return beside, [(name, json.loads(given)) for name, given in zip(names, arguments, strict=True)]


def written_out(calls: list[tuple[str, Any]], written: ToolFormat) -> str:
    """The calls as a model of this format writes them."""
    bodies = [json.dumps({"name": name, written.arguments: given}) for name, given in calls]
    if written.listed:
        return written.begin + written.between.join(bodies) + written.end
    return written.between.join(f"{written.begin}{body}{written.end}" for body in bodies)


ARGUMENTS = st.dictionaries(
    st.text('abc"\\}{é', min_size=1, max_size=4),
    st.text('x"\\}{]\n<tool_call>', max_size=8) | st.integers(),
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.sampled_from(["weather", "clock"]), ARGUMENTS), min_size=1, max_size=3),
    st.integers(1, 12),
    st.text("Hi <tol_ca\n{", max_size=12),
)
def test_calls_are_read_as_they_were_written_in_whatever_pieces_they_come(
    written: ToolFormat, calls: list[tuple[str, Any]], size: int, before: str
) -> None:
    calls = calls if written.several else calls[:1]
    before = before if written.anywhere else ""
    assert read(before + written_out(calls, written), written, size) == (before, calls)


@pytest.mark.parametrize("written", FORMATS)
@pytest.mark.parametrize("text", ["", "Sunny.", '{"name', "a < b <tool", "[1]", "{}"])
def test_text_that_is_no_call_stays_text(written: ToolFormat, text: str) -> None:
    assert read(text, written, 1) == (text, [])


@pytest.mark.parametrize("written", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_an_answer_that_must_call_calls_with_arguments_of_the_schema(written: ToolFormat, seed: int) -> None:
    form = form_of([WEATHER, CLOCK], written, GRAMMARS.literal, CallRules(must=True, several=False))
    beside, [(name, given)] = read(answer(form, seed), written)
    assert beside == ""
    validate(given, dict({"weather": WEATHER, "clock": CLOCK}[name].parameters))


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_may_call_several_times(seed: int) -> None:
    form = form_of([CLOCK], HERMES, GRAMMARS.literal, CallRules(must=True, several=True))
    counts = [len(read(answer(form, 10 * seed + more, most=600), HERMES)[1]) for more in range(4)]
    assert max(counts) > 1


@pytest.mark.parametrize("written", FORMATS)
def test_an_answer_that_may_call_may_be_text(written: ToolFormat) -> None:
    grammar = GRAMMARS.of(form_of([WEATHER], written, GRAMMARS.literal, CallRules(must=False, several=True)))
    for text in ("Sunny, I think.", written.marker + written_out([("weather", {"city": "Bonn"})], written)):
        constraint = grammar.begin()
        for token in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
            constraint.accept(token)


def test_the_format_is_found_in_the_template() -> None:
    assert of_template("{% for m in messages %}{{ m.content }}{% endfor %}") is None
    assert of_template("return within <tool_call></tool_call> XML tags") is HERMES
    assert of_template("<tool_call>\n<function=name>") is None
    assert of_template("{{ '[TOOL_CALLS] [' }}") is MISTRAL
    assert of_template("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}") is None
    assert (
        of_template('respond in the format {"name": function name, "parameters": ...}. Environment: ipython') is LLAMA
    )
