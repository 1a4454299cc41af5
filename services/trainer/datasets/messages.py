"""Lists of messages as other tools write them: OpenAI, TRL, ShareGPT, axolotl."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from services.trainer.datasets.dataset import InvalidSample, check_text
from services.trainer.datasets.records import Message, Role

__all__ = [
    "Turns",
    "answer_of",
    "common_beginning",
    "conversation_of",
    "decoded",
    "is_message",
    "is_messages",
    "turns_of",
]

Turns: TypeAlias = tuple[Message, ...]

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
# What other tools write for the same roles.
_ROLES |= {"developer": "system", "human": "user", "prompter": "user"}
_ROLES |= {"gpt": "assistant", "bot": "assistant", "ai": "assistant", "model": "assistant", "chatgpt": "assistant"}
_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of content parts that are text: of chat completions, and of OpenAI's responses."""
_MARKS = ("weight", "train", "trainable", "training", "loss", "loss_mask")
"""Fields that mark whether an answer is learned: OpenAI's fine-tuning, axolotl's names for it, and those of frameworks
that mask the loss of a message."""

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of an answer that hold its reasoning apart from its text: of DeepSeek's and vLLM's servers, and of TRL."""


def decoded(value: object) -> object:
    """A list that came as JSON text, as CSV and SQL give it; everything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found: object = json.loads(value)
    except ValueError:
        return value
    return found


def is_messages(value: object) -> bool:
    """Whether a value is a list of messages rather than text or a list of texts."""
    return isinstance(value, Sequence) and not isinstance(value, str) and any(map(is_message, value))


def is_message(value: object) -> bool:
    """Whether a value is one message; other objects are content, an answer of JSON for one."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def turns_of(field: str, value: object) -> Turns:
    """The messages of a list; a system message without text (empty or null) is left out, since it instructs nothing.

    Raises:
        InvalidSample: no list of messages, an unknown role, content that is no text, a mark that is no 0 or 1.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InvalidSample(field, shown(value), 'text or a list of {"role", "content"}')
    found = tuple(_message(field, one) for one in value)
    return tuple(one for one in found if one.role != "system" or one.content.strip())


def conversation_of(field: str, value: object) -> tuple[Turns, str]:
    """A conversation as what precedes its last trained answer, and that answer.

    What follows the last trained answer is context to nothing and is left out.

    Raises:
        InvalidSample: see `turns_of`; no turn of user; a last turn that is no answer; no answer that is to be learned.
    """
    found = decoded(value)
    if not isinstance(found, list) or len(found) < 2:
        raise InvalidSample(field, shown(found), 'a list of two or more {"role", "content"}')
    turns = turns_of(field, found)
    if not turns or turns[-1].role != "assistant":
        raise InvalidSample(field, f"a last turn of {turns[-1].role if turns else 'nobody'}", "one of assistant")
    last = max((at for at, turn in enumerate(turns) if turn.role == "assistant" and turn.trained), default=None)
    if last is None:
        raise InvalidSample(field, "weight 0 on every answer", "at least one answer that is to be learned")
    if not any(turn.role == "user" for turn in turns[:last]):
        raise InvalidSample(field, "no turn of user", "at least one before the answer")
    return turns[:last], turns[last].content


def answer_of(field: str, value: object) -> tuple[Turns, str]:
    """An answer given as text, as one message, or as a list whose last message it is: what precedes it, and its text.

    Raises:
        InvalidSample: see `turns_of`; a last message that is not the assistant's, or is not to be learned.
    """
    found = decoded(value)
    if is_message(found):
        found = [found]
    if not is_messages(found):
        if not isinstance(value, str):
            raise InvalidSample(field, shown(value), "text or messages")
        check_text(field, value)
        return (), value
    turns = turns_of(field, found)
    if not turns or turns[-1].role != "assistant":
        raise InvalidSample(field, f"a last turn of {turns[-1].role if turns else 'nobody'}", "one of assistant")
    if not turns[-1].trained:
        raise InvalidSample(field, "weight 0", "an answer that is to be learned, or rows without it")
    return turns[:-1], turns[-1].content


def common_beginning(first: Turns, second: Turns) -> Turns:
    """The longest beginning that two lists of messages share."""
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return first[:length]


def shown(value: object) -> str:
    """A value in a message to its sender, cut."""
    return "nothing" if value is None else repr(value)[:80]


def _message(field: str, turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise InvalidSample(field, shown(turn), '{"role", "content"}')
    name = turn.get("role") or turn.get("from")
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise InvalidSample(field, f"role {name!r}", "system, user or assistant")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise InvalidSample(field, "an answer that calls tools", "answers of text; drop these rows or their calls")
    apart = next((name for name in _REASONING if role == "assistant" and turn.get(name)), None)
    if apart is not None:
        raise InvalidSample(field, f"{apart} beside the content", "the reasoning in the content: <think>…</think>")
    content = turn.get("content")
    content = turn.get("value") if content is None else content
    text = "" if role == "system" and not content else _text(field, content)
    if role != "system" or text.strip():
        check_text(field, text)
    return Message(role, text, role != "assistant" or _trained(field, turn))


def _text(field: str, content: object) -> str:
    """Text, or the parts of text that OpenAI's clients write, one after another."""
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, Sequence) and not isinstance(content, str) and content:
        return "".join(_part(field, one) for one in content)
    if not isinstance(content, str):
        raise InvalidSample(field, f"content {shown(content)}", 'text or a list of {"type": "text", "text"}')
    return content


def _part(field: str, part: object) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind not in _TEXT_PARTS or not isinstance(text, str):
        found = f"a content part of type {shown(kind)}" if kind not in _TEXT_PARTS else f"text {shown(text)}"
        raise InvalidSample(field, found, 'text alone: {"type": "text", "text"}')
    return text


def _trained(field: str, turn: Mapping[str, object]) -> bool:
    for mark in _MARKS:
        value = turn.get(mark)
        if value is None:
            continue
        if value not in (0, 1):
            raise InvalidSample(field, f"{mark} {shown(value)}", "0 (context alone) or 1 (learned)")
        if not value:
            return False
    if turn.get("train_detail"):
        raise InvalidSample(field, "train_detail", "answers that are learned whole or not at all: weight 0 or 1")
    return True
