"""What a stored response answered, as input items: `GET /v1/responses/ID/input_items`.

https://platform.openai.com/docs/api-reference/responses/input-items
"""

from collections.abc import Iterator, Sequence

from services.inference.errors import BadRequest
from services.inference.http.messages import ChatMessage
from services.inference.http.responses.output import Object, item_id


def input_items(turns: Sequence[ChatMessage], response_id: str) -> list[Object]:
    """The turns before the answer, those of the responses that it continued too; the oldest first."""
    items = [item for turn in turns for item in _items(turn)]
    return [
        {"id": item_id("in", place, response_id), "status": "completed", **item} for place, item in enumerate(items)
    ]


def item_page(items: Sequence[Object], after: str | None, limit: int) -> Object:
    """Items behind `after`, at most `limit`; raises `BadRequest` where that is none of them."""
    ids = [str(item["id"]) for item in items]
    if after is not None and after not in ids:
        raise BadRequest(f"after is {after[:80]!r}, which is no input item here.", code="invalid_value", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    shown = ids[begin : begin + limit]
    return {
        "object": "list",
        "data": list(items[begin : begin + limit]),
        "first_id": shown[0] if shown else None,
        "last_id": shown[-1] if shown else None,
        "has_more": begin + limit < len(items),
    }


def _items(turn: ChatMessage) -> Iterator[Object]:
    if turn.role in ("tool", "function"):
        yield {"type": "function_call_output", "call_id": turn.tool_call_id, "output": turn.text}
        return
    if turn.reasoning_content:
        thought = {"type": "reasoning_text", "text": turn.reasoning_content}
        yield {"type": "reasoning", "summary": [], "content": [thought]}
    if turn.text or not turn.tool_calls:
        written: Object = {"type": "input_text", "text": turn.text}
        if turn.role == "assistant":
            written = {"type": "output_text", "text": turn.text, "annotations": []}
        yield {"type": "message", "role": turn.role, "content": [written]}
    for call in turn.tool_calls or ():
        called = call.function
        yield {"type": "function_call", "call_id": call.id, "name": called.name, "arguments": called.arguments}
