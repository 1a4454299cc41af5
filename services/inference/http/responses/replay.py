"""A stored response as the events in which it came, or would have come: with the same numbers, at once."""

import json
from collections.abc import Iterator, Sequence
from itertools import count

from pydantic import JsonValue

from services.inference.answer_reader import AnswerPart
from services.inference.http.responses.output import Delta, Event, Object, OutputItems
from services.inference.http.responses.store import KeptResponse
from services.inference.reasoning import ThoughtPart
from services.inference.tool_calls.reader import ArgumentsPart, CallBegins, TextPart


def written(number: int, event: Event) -> str:
    """An event as it is sent."""
    kind, fields = event
    data = json.dumps({"type": kind, "sequence_number": number, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n"


def replayed(kept: KeptResponse, starting_after: int | None) -> Iterator[str]:
    """The events with a number above `starting_after`; None: all of them."""
    for number, event in zip(count(), _events(kept), strict=False):
        if starting_after is None or number > starting_after:
            yield written(number, event)


def _events(kept: KeptResponse) -> Iterator[Event]:
    response: Object = dict(kept.response)
    unset = ("completed_at", "incomplete_details", "usage")
    begun = response | dict.fromkeys(unset) | {"status": "in_progress", "output": []}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    items = [item for item in _list(kept.response["output"]) if isinstance(item, dict)]
    calls = iter([str(item["call_id"]) for item in items if item["type"] == "function_call"])
    output = OutputItems(str(response["id"]), lambda: next(calls))
    for index, item in enumerate(items):
        for part, logprobs in _parts(index, item, kept.deltas):
            yield from output.take(part, logprobs)
    yield from output.finish(cut_off=response["status"] == "incomplete")
    yield f"response.{response['status']}", {"response": response}


def _parts(
    index: int, item: dict[str, JsonValue], deltas: Sequence[Delta] | None
) -> Iterator[tuple[AnswerPart, Sequence[Object]]]:
    """The parts that an item was made of, with the log-probabilities of each; in one where that was not kept."""
    text, listed = _written_in(item)
    own = [(length, tokens) for at, length, tokens in deltas if at == index] if deltas is not None else None
    if item["type"] == "function_call":
        yield CallBegins(0, str(item["name"])), ()
    elif not own:
        yield (ThoughtPart("") if item["type"] == "reasoning" else TextPart("")), ()
    for length, tokens in [(len(text), len(listed))] if own is None else own:
        piece, text = text[:length], text[length:]
        logprobs, listed = listed[:tokens], listed[tokens:]
        match item["type"]:
            case "function_call":
                yield ArgumentsPart(0, piece), ()
            case "reasoning":
                yield ThoughtPart(piece), ()
            case _:
                yield TextPart(piece), logprobs


def _written_in(item: dict[str, JsonValue]) -> tuple[str, Sequence[Object]]:
    """What the model wrote of an item, and the log-probabilities listed with it."""
    if item["type"] == "function_call":
        return str(item["arguments"]), ()
    [part] = _list(item["content"])
    if not isinstance(part, dict):
        return "", ()
    return str(part["text"]), [dict(one) for one in _list(part.get("logprobs") or []) if isinstance(one, dict)]


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
