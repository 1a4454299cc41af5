"""Every field of every request body has a bound, and the docs list what the schemas accept."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import chat_completion_assistant_message_param as assistant_message
from openai.types.chat import chat_completion_content_part_text_param as text_part
from openai.types.chat import chat_completion_message as answered_message
from openai.types.chat import chat_completion_tool_message_param as tool_message
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import easy_input_message_param as response_message
from openai.types.responses import function_tool_param as response_function
from openai.types.responses import response_create_params as response_params
from openai.types.responses import response_function_tool_call_param as response_call
from openai.types.responses import response_input_item_param as response_items
from openai.types.responses import response_output_message_param as response_answer
from openai.types.responses import response_reasoning_item_param as response_reasoning
from pydantic import BaseModel, ValidationError

from services.inference.http.admin import EvictRequest, PreloadRequest
from services.inference.http.feedback_body import FeedbackRequest
from services.inference.http.messages import ChatMessage, TextPart
from services.inference.http.parameters import Body, standings
from services.inference.http.responses import items
from services.inference.http.responses.request import ResponseFunction, ResponseRequest
from services.inference.http.schemas import ChatRequest, CompletionRequest, EmbeddingRequest

REQUESTS = (
    ChatRequest,
    CompletionRequest,
    ResponseRequest,
    EmbeddingRequest,
    FeedbackRequest,
    PreloadRequest,
    EvictRequest,
)
DOCS = Path(__file__).parents[3] / "docs" / "serving.md"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def unbounded(schema: dict[str, Any], whole: dict[str, Any], path: str) -> Iterator[str]:
    """Places in a JSON schema that accept a value of any size."""
    if "$ref" in schema:
        yield from unbounded(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole, path)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from unbounded(one, whole, path)
    if "enum" in schema or "const" in schema:
        return
    match schema.get("type"):
        case "string" if "maxLength" not in schema and "pattern" not in schema:
            yield f"{path}: text of any length"
        case "integer" if not ({"maximum", "exclusiveMaximum"} & set(schema)):
            yield f"{path}: any integer"
        case "array":
            if "maxItems" not in schema:
                yield f"{path}: any number of items"
            yield from unbounded(schema["items"], whole, f"{path}[]")
        case "object":
            if "additionalProperties" in schema and schema["additionalProperties"] is not False:
                if "maxProperties" not in schema:
                    yield f"{path}: any number of members"
                yield from unbounded(schema["additionalProperties"], whole, f"{path}.*")
            for name, one in schema.get("properties", {}).items():
                yield from unbounded(one, whole, f"{path}.{name}")


@pytest.mark.parametrize("request_body", REQUESTS)
def test_every_field_of_a_request_is_bounded(request_body: type[BaseModel]) -> None:
    schema = request_body.model_json_schema()
    assert list(unbounded(schema, schema, request_body.__name__)) == []


@pytest.mark.parametrize(
    ("field", "accepted", "refused"),
    [
        ("stop", ["x"] * 16, ["x"] * 17),
        ("stop", "x" * 200, "x" * 201),
        ("seed", 2**63 - 1, 2**63),
        ("seed", -(2**63), -(2**63) - 1),
        ("n", 8, 9),
        ("presence_penalty", -2, -2.01),
        ("frequency_penalty", 2, 2.01),
        ("repetition_penalty", 0.01, 0),
        ("top_k", -1, -2),
        ("min_p", 1, 1.01),
        ("logit_bias", {"0": -100}, {"0": -100.5}),
        ("logit_bias", {str(token): 1 for token in range(1024)}, {str(token): 1 for token in range(1025)}),
        ("stop_token_ids", [0] * 64, [0] * 65),
        ("temperature", 2, 2.01),
        ("temperature", 5e-324, float("nan")),
        ("top_p", 5e-324, 0),
        ("metadata", {str(number): "v" for number in range(16)}, {str(number): "v" for number in range(17)}),
        ("metadata", {"k" * 64: "v" * 512}, {"k" * 65: "v"}),
        ("priority", -10, -11),
        ("max_tokens", 2**31 - 1, 2**31),
        ("user", "u" * 200, "u" * 201),
    ],
)
def test_the_bounds_are_where_the_docs_put_them(field: str, accepted: Any, refused: Any) -> None:
    assert ChatRequest.model_validate(BODY | {field: accepted})
    with pytest.raises(ValidationError, match=field):
        ChatRequest.model_validate(BODY | {field: refused})
    section = DOCS.read_text().partition("## Request bounds")[2].partition("\n## ")[0]
    assert f"`{field}`" in section


def test_the_docs_give_the_bounds_of_every_field_that_is_accepted() -> None:
    section = DOCS.read_text().partition("## Request bounds")[2].partition("\n## ")[0]
    bodies = (ChatRequest, CompletionRequest, ResponseRequest, EmbeddingRequest)
    fields = {name for body in bodies for name, standing in standings(body) if standing == "accepted"}
    assert [name for name in sorted(fields) if f"`{name}`" not in section] == []


def in_the_docs(first_cell: str, column: int) -> dict[str, str]:
    """Parameter → what a column of the table that begins with this cell says of it."""
    table = DOCS.read_text().partition(f"| {first_cell} |")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for row in table.split("\n")[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if cells[column] != "–":
            found |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), cells[column])
    return found


@pytest.mark.parametrize(
    ("body", "table", "column"),
    [
        (ChatRequest, "parameter", 1),
        (CompletionRequest, "parameter", 2),
        (ResponseRequest, "parameter of `/v1/responses`", 1),
        (EmbeddingRequest, "parameter of `/v1/embeddings`", 1),
    ],
)
def test_the_docs_tell_what_becomes_of_every_parameter(body: type[Body], table: str, column: int) -> None:
    assert in_the_docs(table, column) == dict(standings(body))


@pytest.mark.parametrize(
    ("body", "theirs"),
    [
        (ChatRequest, chat_params.CompletionCreateParamsBase),
        (CompletionRequest, completion_params.CompletionCreateParamsBase),
        (ResponseRequest, response_params.ResponseCreateParamsBase),
        (EmbeddingRequest, embedding_params.EmbeddingCreateParams),
    ],
)
def test_every_parameter_of_the_installed_openai_client_has_its_place(body: type[Body], theirs: type) -> None:
    assert sorted(set(theirs.__annotations__) - set(body.model_fields)) == []


def test_every_member_of_the_installed_openai_clients_messages_has_its_place() -> None:
    theirs = (
        assistant_message.ChatCompletionAssistantMessageParam,
        tool_message.ChatCompletionToolMessageParam,
        answered_message.ChatCompletionMessage,
    )
    members = {name for one in theirs for name in one.__annotations__} - {"__pydantic_validator__"}
    assert sorted(members - set(ChatMessage.model_fields)) == []
    assert sorted(set(text_part.ChatCompletionContentPartTextParam.__annotations__) - set(TextPart.model_fields)) == []


@pytest.mark.parametrize(
    ("item", "theirs"),
    [
        (items.MessageItem, response_message.EasyInputMessageParam),
        (items.MessageItem, response_answer.ResponseOutputMessageParam),
        (items.FunctionCallItem, response_call.ResponseFunctionToolCallParam),
        (items.FunctionResultItem, response_items.FunctionCallOutput),
        (items.ReasoningItem, response_reasoning.ResponseReasoningItemParam),
        (ResponseFunction, response_function.FunctionToolParam),
    ],
)
def test_every_member_of_the_installed_openai_clients_items_has_its_place(item: type[Body], theirs: type) -> None:
    ours = {field.alias or name for name, field in item.model_fields.items()}
    assert sorted(set(theirs.__annotations__) - ours) == []
