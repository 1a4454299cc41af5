"""What each route takes as its body, declared at the route and known before the first byte is read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path

__all__ = ["JSON_BODY", "BodyRule", "Known", "RouteTable", "body_rule"]

JSON_BYTES: Final = 1 << 20
_EXTENSION = "x-lorafleet-body"


@dataclass(frozen=True, slots=True)
class BodyRule:
    """`largest` in bytes. A streamed body is handed on as it comes, any other is JSON and read before the endpoint."""

    largest: int
    streamed: bool = False


JSON_BODY: Final = BodyRule(JSON_BYTES)
"""The rule of every route that declares none."""


def body_rule(largest: int | str, media_type: str | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is not JSON of at most 1 MiB.

    Args:
        largest: bytes, or the name of the setting that holds them.
        media_type: what a streamed body is; None for JSON that may be larger than usual. A streamed body is never
            held in memory by the kit: the endpoint writes it to a file.
    """
    if media_type is None:
        return {_EXTENSION: {"largest": largest, "streamed": False}}
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        _EXTENSION: {"largest": largest, "streamed": True},
        "requestBody": {"required": True, "content": content},
    }


@dataclass(frozen=True, slots=True)
class Known:
    """A route: its path template, methods, and what it takes as its body."""

    template: str
    methods: frozenset[str]
    pattern: re.Pattern[str]
    body: BodyRule


class RouteTable:
    """An application's routes, for what is decided before its router runs."""

    def __init__(self, routes: Sequence[BaseRoute], settings: object) -> None:
        self._routes = tuple(_known(routes, settings))

    def find(self, method: str, path: str) -> Known | None:
        """The route that the application's router takes for this request; None where it has none."""
        for route in self._routes:
            if method in route.methods and route.pattern.match(path):
                return route
        return None


def _known(routes: Sequence[BaseRoute], settings: object) -> Iterable[Known]:
    for route in iter_route_contexts(routes):
        if not route.path or not route.methods:
            continue
        pattern, template, _ = compile_path(route.path)
        rule = _rule(getattr(route, "openapi_extra", None) or {}, settings)
        yield Known(template, frozenset(route.methods), pattern, rule)


def _rule(extra: Mapping[str, Any], settings: object) -> BodyRule:
    declared = extra.get(_EXTENSION)
    if declared is None:
        return JSON_BODY
    largest = declared["largest"]
    return BodyRule(getattr(settings, largest) if isinstance(largest, str) else largest, declared["streamed"])
