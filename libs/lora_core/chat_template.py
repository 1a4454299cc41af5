"""A base model's chat template, rendered in a process of its own with bounded processor time, memory and text.

Templates come from base model folders, and jinja's sandbox bounds none of these: nested loops, `"x" * 10**9` or
`center(10**9)` would take the memory or block the calling thread. Measures inside of the interpreter miss
what a single operation does, so the kernel keeps the bounds, and what a template breaks is its own process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self

from lora_core import json_frames
from lora_core.template_errors import ChatTemplateError, Limit, TemplateRefuses, TemplateTooCostly, UnknownVariables
from lora_core.template_file import read_template

_WORKER = Path(__file__).with_name("chat_template_worker.py")
_START_SECONDS = 60.0
"""For the interpreter to start, on a machine that is busy with other things."""
_BUSY_FACTOR = 20
"""Seconds on the clock for one of processor time, before a renderer is given up."""
_HEADROOM = 16 << 10
"""Bytes of an answer beside its text: an error's message."""
_PROBE = "Lorafleet"
"""A user's text that is looked for in what a template writes of it."""
_BYTES_A_CHARACTER = 12
"""Of JSON at most: a character beyond the first 65,536 is two escapes."""

_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt", "strftime_now"})
"""Variables that every conversation sets, as transformers does."""


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """Bounds of compiling a template, and of each conversation."""

    seconds: float = 1.0
    """Processor time."""
    memory: int = 256 << 20
    """Bytes of address space of the process, interpreter included. Kept on Linux alone."""
    characters: int = 256 << 10
    """Of the text, beside `repeats` times those of the conversation."""
    repeats: int = 4


class _Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any

    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...

    def get_chat_template(self) -> str: ...


class ChatTemplate:
    """Renders conversations as transformers' `apply_chat_template` does; safe to use from several threads.

    `variables`: what the template may use beside the conversation: the special tokens. Its process starts with the
    first conversation, and again after one that broke a limit.

    Templates of models that see (LLaVA, SmolVLM) read a content as a list of parts and write nothing of a plain text.
    Such a template is given each text as a list of one part; its own rendering of a probe shows which one it is.
    """

    def __init__(
        self, template: str, variables: Mapping[str, object] | None = None, limits: RenderLimits | None = None
    ) -> None:
        self._template, self._variables = template, dict(variables or {})
        self._limits = limits or RenderLimits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: weakref.finalize[..., Any] | None = None
        self._unusable: ChatTemplateError | None = None
        self._reads_parts: bool | None = None
        self._reads: frozenset[str] = frozenset()
        """Names that the template reads, known once it is compiled."""

    @classmethod
    def of(cls, tokenizer: _Tokenizer, limits: RenderLimits | None = None) -> Self | None:
        """A tokenizer's template; None if it has none. Raises ValueError where it has several and no default."""
        if not tokenizer.chat_template:
            return None
        return cls(tokenizer.get_chat_template(), tokenizer.special_tokens_map, limits)

    @classmethod
    def of_folder(cls, folder: Path, limits: RenderLimits | None = None) -> Self | None:
        """The template in a base model's folder, read without its tokenizer; None if it has none.

        Raises ValueError as `read_template` does.
        """
        stored = read_template(folder)
        return None if stored is None else cls(stored.text, stored.variables, limits)

    @property
    def text(self) -> str:
        """The template itself."""
        return self._template

    @property
    def reads_tools(self) -> bool:
        """Whether the template shows its model what it may call. Raises TemplateRefuses where it does not compile."""
        with self._lock:
            if self._unusable is not None:
                raise self._unusable
            self._running()
            return "tools" in self._reads

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = False,
        now: datetime | None = None,
        extra: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """The text of a conversation, messages with `role` and `content`, and what templates read beside these.

        `tools` are what may be called, as transformers' `apply_chat_template` takes them: `type` and `function`. `now`
        is the time that the template writes with `strftime_now`; None is the clock's. `extra` are values of variables
        that the template reads beside the conversation, such as `enable_thinking`.

        Raises:
            TemplateRefuses: the template raises, or does not compile.
            UnknownVariables: it reads no variable of a name in `extra`.
            TemplateTooCostly: rendering took too much time or memory, or wrote too long a text.
        """
        if not messages:
            raise TemplateRefuses("the conversation has no messages")
        when = (now or datetime.now()).isoformat()
        with self._lock:
            if self._unusable is not None:
                raise self._unusable
            if self._reads_parts is None:
                self._reads_parts = self._finds_parts(when)
            self._check_variables(extra or {})
            beside = {"extra": dict(extra or {}), "tools": list(tools) if tools else None}
            return self._text(messages, when, opened=add_generation_prompt, parts=self._reads_parts, beside=beside)

    def _check_variables(self, extra: Mapping[str, object]) -> None:
        if not extra:
            return
        self._running()
        known = self._reads - _OURS - self._variables.keys()
        if unknown := [name for name in extra if name not in known]:
            raise UnknownVariables(unknown, sorted(known))

    def _finds_parts(self, now: str) -> bool:
        """Whether the template writes a text that comes as a list of parts, and nothing of a plain one."""
        self._running()  # what is wrong with the template itself is raised
        probe = [{"role": "user", "content": _PROBE}]
        for parts in (False, True):
            try:
                if _PROBE in self._text(probe, now, opened=True, parts=parts):
                    return parts
            except ChatTemplateError:
                return False  # a plain text is the usual form; what the template refuses is refused where it comes
        return False

    def _text(
        self,
        messages: Sequence[Mapping[str, object]],
        now: str,
        *,
        opened: bool,
        parts: bool,
        beside: Mapping[str, object] | None = None,
    ) -> str:
        """One conversation's text; see `render`. The lock is held."""
        limits, beside = self._limits, beside or {"extra": {}, "tools": None}
        given = sum(_size(member) for message in messages for member in message.values()) + _size(beside["tools"])
        most = limits.characters + limits.repeats * given
        request = {
            "messages": [_in_parts(message) for message in messages] if parts else list(messages),
            "variables": self._variables,
            "add_generation_prompt": opened,
            "now": now,
            **beside,
            "characters": most,
        }
        process = self._running()
        try:
            json_frames.send(process, request)
            answer = self._answer(process, _HEADROOM + _BYTES_A_CHARACTER * most)
        except TemplateRefuses:
            raise
        except BaseException:
            self._stop()
            raise
        text: str = answer["text"]
        return text

    def close(self) -> None:
        """Ends the process; the next conversation starts another one."""
        with self._lock:
            self._stop()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        self._process = process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # No credentials where templates run; the path is where some machines have the interpreter's own library.
            env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the parent process
        )
        self._ending = weakref.finalize(self, json_frames.end, process)
        try:
            self._compile(process)
        except BaseException:
            self._stop()
            raise
        return process

    def _compile(self, process: "subprocess.Popen[bytes]") -> None:
        limits = self._limits
        json_frames.send(process, {"template": self._template, "memory": limits.memory, "seconds": limits.seconds})
        if json_frames.receive(process, _START_SECONDS, _HEADROOM) is None:
            json_frames.end(process)
            raise RuntimeError(f"the renderer of chat templates did not start: exit status {process.returncode}")
        try:
            self._reads = frozenset(self._answer(process, _HEADROOM)["variables"])
        except ChatTemplateError as error:
            # No conversation changes what the template itself is; being killed may have other reasons.
            if process.returncode != -signal.SIGKILL:
                self._unusable = error
            raise

    def _answer(self, process: "subprocess.Popen[bytes]", most: int) -> dict[str, Any]:
        answer = json_frames.receive(process, _BUSY_FACTOR * self._limits.seconds, most)
        if answer is None:
            json_frames.end(process)
            if process.returncode in {-signal.SIGPROF, -signal.SIGKILL}:
                raise self._too_costly("time")
            raise TemplateRefuses(f"its renderer ended with exit status {process.returncode}")
        if (limit := answer.get("limit")) is not None:
            raise self._too_costly(limit)
        if (why := answer.get("refused")) is not None:
            raise TemplateRefuses(why)
        return answer

    def _too_costly(self, limit: Limit) -> TemplateTooCostly:
        limits = self._limits
        most = {
            "time": f"{limits.seconds:g} s of processor time",
            "memory": f"{limits.memory >> 20} MiB of memory",
            "text": f"{limits.characters} characters of text beside {limits.repeats} times those of the conversation",
        }
        return TemplateTooCostly(limit, f"the chat template takes more than {most[limit]}")

    def _stop(self) -> None:
        if self._ending is not None:
            self._ending()
        self._process = self._ending = None


def _size(member: object) -> int:
    """Characters of a text, or of the JSON of something else."""
    return len(member) if isinstance(member, str) else len(json.dumps(member)) if member is not None else 0


def _in_parts(message: Mapping[str, object]) -> dict[str, object]:
    """The message with its text as a list of one part, in OpenAI's form."""
    return {**message, "content": [{"type": "text", "text": message["content"]}]}
