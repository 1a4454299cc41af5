"""The form of an answer that may call functions, or has to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lora_core.grammar import JSON_STYLE, Form
from services.inference.tool_calls.format import ToolFormat


@dataclass(frozen=True, slots=True)
class Function:
    """What may be called. parameters: JSON schema of its arguments, an object."""

    name: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CallRules:
    """must: an answer calls; else it may be text. several: it may call more than once."""

    must: bool
    several: bool


def form_of(
    functions: Sequence[Function],
    written: ToolFormat,
    literal: Callable[[str], str],
    rules: CallRules,
    schema: Mapping[str, object] | None = None,
) -> Form:
    """The form of answers that call these functions; a grammar in llguidance's kind of Lark.

    literal: a text as the grammar of this tokenizer has it, see `Grammars.literal`. schema: JSON schema of answers that
    call nothing, where these are no free text; calls have to be known from JSON by their first character then.
    """
    marker, begin, end = (literal(text) for text in (written.marker, written.begin, written.end))
    following = f"{literal(written.between)} " + ("call" if written.listed else f"{begin} call {end}")
    more = f"({following})*" if rules.several and written.several else ""
    lines = ["%llguidance {}"]
    if written.listed:
        lines.append(f"calls: {marker} {begin} call {more} {end}")
    else:
        lines.append(f"calls: {begin} call {end} {more}")
    if rules.must:
        lines.append("start: calls")
    elif schema is not None:
        lines += ["start: calls | answer", f"answer: %json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"]
    elif written.anywhere:
        # Text up to where a call begins, then nothing but that call.
        lazy = "" if begin.startswith("<[") else "[lazy]"
        lines += [f"start: (head call {end}){'*' if more else '?'} TEXT", f"head{lazy}: TEXT {begin}"]
    else:
        # What begins as a call does is one.
        first = marker or written.head[0]
        lines += ["start: calls | text", "text: TEXT" if first == marker else f"text: /([^\\{first}](.|\\n)*)?/"]
    lines += ["TEXT: /(.|\\n)*/", f"call: {' | '.join(f'call_{number}' for number in range(len(functions)))}"]
    for number, one in enumerate(functions):
        named = json.dumps(f'{{"name": "{one.name}{written.middle}')
        arguments = json.dumps({**one.parameters, "x-guidance": JSON_STYLE})
        lines += [f'call_{number}: {named} arguments_{number} "}}"', f"arguments_{number}: %json {arguments}"]
    return Form("lark", "\n".join(lines) + "\n")
