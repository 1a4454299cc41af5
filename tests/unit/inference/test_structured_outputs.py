"""The form that a request sets reaches the engine; one that cannot be held is refused by its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.inference.surface import MODEL, chat, surface

pytestmark = pytest.mark.unit

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
NAMED = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("given", "kind", "source"),
    [
        ({"response_format": NAMED}, "json_schema", SCHEMA),
        ({"response_format": {"type": "json_object"}}, "json_schema", {"type": "object"}),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json_object": True}}, "json_schema", {"type": "object"}),
        ({"guided_choice": ["yes", "no"]}, "choice", ["yes", "no"]),
        ({"structured_outputs": {"choice": ["yes"], "regex": None}}, "choice", ["yes"]),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_form_of_an_answer_reaches_the_engine(
    path: str, given: dict[str, Any], kind: str, source: Any
) -> None:
    http, backend = surface()
    body = chat() if path.startswith("/v1/chat") else {"model": MODEL, "prompt": "Open?"}
    answer = await http.post(path, json=body | given | {"n": 2})
    assert answer.status_code == 200, answer.text
    forms = [one.grammar.form for one in backend.requests if one.grammar is not None]
    assert [(form.kind, json.loads(form.source)) for form in forms] == [(kind, source)] * 2


async def test_a_regular_expression_reaches_the_engine() -> None:
    http, backend = surface()
    for given in ({"guided_regex": "[0-9]+"}, {"structured_outputs": {"regex": "[0-9]+"}}):
        assert (await http.post("/v1/chat/completions", json=chat(**given))).status_code == 200
        grammar = backend.requests[-1].grammar
        assert grammar is not None
        assert (grammar.form.kind, grammar.form.source) == ("regex", "[0-9]+")


@pytest.mark.parametrize("given", [{}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}])
async def test_without_a_form_answers_are_free_text(given: dict[str, Any]) -> None:
    http, backend = surface()
    assert (await http.post("/v1/chat/completions", json=chat(**given))).status_code == 200
    assert [one.grammar for one in backend.requests] == [None]


@pytest.mark.parametrize(
    ("given", "param", "told"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
            "response_format.json_schema.schema",
            'Unimplemented keys: ["not"]',
        ),
        ({"guided_json": "{"}, "guided_json", "is no JSON schema: Invalid JSON"),
        ({"guided_json": '{"a":' * 100 + "1" + "}" * 100}, "guided_json", "more than 64 deep"),
        ({"guided_regex": "(?<=a)b"}, "guided_regex", "look-around"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "send one of them"),
        ({"response_format": NAMED, "guided_json": SCHEMA}, "guided_json", "send one of them"),
    ],
)
async def test_a_form_that_cannot_be_held_is_refused_by_its_field(given: dict[str, Any], param: str, told: str) -> None:
    http, backend = surface()
    refused = await http.post("/v1/chat/completions", json=chat(**given))
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == param
    assert told in error["message"]
    assert backend.requests == []


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.json_schema"),
        ({"response_format": NAMED | {"schema": {}}}, "response_format.json_schema.schema"),
        ({"guided_choice": []}, "guided_choice"),
        ({"structured_outputs": {"choice": ["x"] * 513}}, "structured_outputs.choice"),
        ({"guided_regex": "x" * 16_385}, "guided_regex"),
        ({"guided_grammar": "root ::= 'a'"}, "guided_grammar"),
        ({"structured_outputs": {"grammar": "root ::= 'a'"}}, "structured_outputs.grammar"),
    ],
)
async def test_a_form_that_is_none_is_refused_with_what_is_expected(given: dict[str, Any], param: str) -> None:
    http, _ = surface()
    refused = await http.post("/v1/chat/completions", json=chat(**given))
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == param
