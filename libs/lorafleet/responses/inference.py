"""What the inference service answers: chat completions in OpenAI's form."""

from __future__ import annotations

from lorafleet.responses.reply import Reply


class Message(Reply):
    """A chat message."""

    role: str = "assistant"
    content: str | None = ""


class Choice(Reply):
    """One answer of a chat completion."""

    message: Message
    finish_reason: str | None = None
    model: str = ""
    """Of a comparison: the model that was requested for this answer."""


class Weighted(Reply):
    """An adapter of a weighted set."""

    adapter_id: str
    weight: float


class Served(Reply):
    """Who answered: the adapter and its digest, or the base model."""

    adapter_id: str | None = None
    artifact_sha256: str | None = None
    base_model: str = ""
    mix: list[Weighted] | None = None
    routed: object = None
    comparison_id: str = ""


class ChatCompletion(Reply):
    """An answer in OpenAI's form, with `lorafleet` beside it."""

    id: str
    model: str = ""
    choices: list[Choice]
    lorafleet: Served | None = None

    @property
    def text(self) -> str:
        """The first answer."""
        return self.choices[0].message.content or "" if self.choices else ""
