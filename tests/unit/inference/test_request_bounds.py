"""Every field of every request body has a bound, and the docs list what the schemas accept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from services.inference.admin import EvictRequest, PreloadRequest
from services.inference.schemas import ChatRequest, CompletionRequest, EmbeddingRequest, FeedbackRequest

REQUESTS = (ChatRequest, CompletionRequest, EmbeddingRequest, FeedbackRequest, PreloadRequest, EvictRequest)
DOCS = Path(__file__).parents[3] / "docs" / "serving.md"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def unbounded(schema: dict[str, Any], whole: dict[str, Any], path: str) -> Iterator[str]:
    """Places in a JSON schema that accept a value of any size."""
    if "$ref" in schema:
        yield from unbounded(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole, path)
    for one in schema.get("anyOf", ()):
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
        ("seed", 0, -1),
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


def test_the_docs_name_every_field_that_changes_an_answer() -> None:
    section = DOCS.read_text().partition("## Request bounds")[2].partition("\n## ")[0]
    fields = {*ChatRequest.model_fields, *CompletionRequest.model_fields, *EmbeddingRequest.model_fields}
    assert [name for name in sorted(fields) if f"`{name}`" not in section] == []
