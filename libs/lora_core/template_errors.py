"""Why a conversation has no text by a chat template."""

from collections.abc import Sequence
from typing import Literal

Limit = Literal["time", "memory", "text"]


class ChatTemplateError(ValueError):
    """A conversation that has no text by this template."""


class TemplateRefuses(ChatTemplateError):
    """The template does not compile, or raises for this conversation; the message is its own."""


class UnknownVariables(ChatTemplateError):
    """The template reads no variables of these names; `known` are those that it does."""

    def __init__(self, names: Sequence[str], known: Sequence[str]) -> None:
        self.known = tuple(known)
        has = f"it reads {', '.join(known)}" if known else "it reads none"
        super().__init__(f"the chat template has no variable {', '.join(map(repr, names))}: {has}")


class TemplateTooCostly(ChatTemplateError):
    """Rendering took more than is allowed; `limit` names it."""

    def __init__(self, limit: Limit, message: str) -> None:
        self.limit: Limit = limit
        super().__init__(message)
