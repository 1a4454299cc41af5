"""Items of stored responses, where a request refers to them by their ids."""

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from fleet_kit.auth import Caller
from services.inference.errors import BadRequest, NotFound
from services.inference.http.responses.items import InputItem, OwnItem, ReferenceItem
from services.inference.http.responses.output import response_of
from services.inference.http.responses.store import ResponseStore

_ITEMS = TypeAdapter[list[OwnItem]](list[OwnItem])
MOST_READ = 32
"""Stored responses that one request may refer to."""


def outputs_of(response: Mapping[str, object]) -> list[OwnItem]:
    """A response's output, as input."""
    return _ITEMS.validate_python(response["output"])


async def resolved(given: Sequence[InputItem], caller: Caller, store: ResponseStore) -> list[OwnItem]:
    """The items, with each reference replaced by what it refers to.

    Raises:
        BadRequest: what is referred to is not stored, is not the caller's, or lies in too many responses.
        Busy: see `ResponseStore.find`.
    """
    responses = {response_of(one.id) for one in given if isinstance(one, ReferenceItem)}
    if len(responses) > MOST_READ:
        message = f"input refers to items of more than {MOST_READ} responses; use previous_response_id."
        raise BadRequest(message, code="invalid_value", param="input")
    stored: dict[str, OwnItem] = {}
    for response_id in responses:
        try:
            kept = await store.find(response_id, caller)
        except NotFound:
            continue
        stored |= {item.id: item for item in outputs_of(kept.response) if item.id}
    items: list[OwnItem] = []
    for one in given:
        item = stored.get(one.id) if isinstance(one, ReferenceItem) else one
        if item is None:
            message = f"item {str(one.id)[:80]!r} does not exist or is not stored; send the item itself."
            raise BadRequest(message, code="item_not_found", param="input")
        items.append(item)
    return items
