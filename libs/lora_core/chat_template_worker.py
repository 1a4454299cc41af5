"""The process in which one chat template is rendered; `lora_core.chat_template` starts it, by this file's path.

It imports jinja2 and the standard library alone, gets no environment variables, and gives up what a template never
needs before it compiles one: memory beyond a limit, files, further processes. Frames in both directions are a length of
four bytes and JSON. The environment is that of transformers' `apply_chat_template`, so that texts are the same.
"""

import contextlib
import json
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

_MESSAGE = 500
"""Characters of an error's text that are passed on: a template may raise whole conversations."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what a model wrote; it renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: jinja2.runtime.Macro) -> str:
        return str(caller())


class _Namespace(jinja2.utils.Namespace):
    """`namespace()` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that a template may name an attribute "self"
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _require_public(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}: it begins with an underscore")


class _Dict:
    """`dict()` without the class's attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise_exception, "dict": _Dict(), "namespace": _Namespace}
    return environment


def _compile(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def _variables(template: str) -> list[str]:
    """The names that the template reads from its renderer, sorted."""
    environment = _environment()
    return sorted(jinja2.meta.find_undeclared_variables(environment.parse(template)) - environment.globals.keys())


def _render(template: jinja2.Template, request: Mapping[str, Any]) -> dict[str, object]:
    now = datetime.fromisoformat(request["now"])
    pieces: list[str] = []
    room: int = request["characters"]
    for piece in template.generate(
        **request["extra"] | request["variables"],
        messages=request["messages"],
        tools=request["tools"],
        documents=None,
        add_generation_prompt=request["add_generation_prompt"],
        strftime_now=now.strftime,
    ):
        room -= len(piece)
        if room < 0:
            return {"limit": "text"}
        pieces.append(piece)
    return {"text": "".join(pieces)}


def _confine(memory: int) -> None:
    # Elsewhere (macOS) the kernel refuses a limit of the address space.
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _import_all() -> None:
    """Uses what jinja2 and the interpreter import late: once confined, the process can open nothing, not even those."""
    everything = _compile(r"{{ '\u00e9\n' | tojson }}{{ lipsum(1) }}{{ '%s' | format(1) }}{{ missing.attribute }}")
    with contextlib.suppress(jinja2.exceptions.UndefinedError):
        everything.render()


def _default_signal() -> None:
    # An ignored or blocked signal stays so across exec, and the one that bounds time must end the process.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})


def _bounded(seconds: float) -> None:
    # The kernel ends the process after this much processor time, also while a single operation of C runs.
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _read(stream: BinaryIO) -> dict[str, Any]:
    head = stream.read(4)
    if len(head) < 4:
        sys.exit(0)
    message: dict[str, Any] = json.loads(stream.read(struct.unpack(">I", head)[0]))
    return message


def _write(stream: BinaryIO, message: Mapping[str, object]) -> None:
    body = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def _attempt(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What the work answers, or why it has no answer."""
    try:
        return work()
    except MemoryError:
        return {"limit": "memory"}
    except Exception as error:  # jinja and templates raise what they like
        return {"refused": f"{error}"[:_MESSAGE] or type(error).__name__}


def main() -> None:
    """Compiles the template of the first frame, then renders one conversation a frame, until its input ends."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    first = _read(source)
    _import_all()
    _default_signal()
    _confine(first["memory"])
    _write(out, {"started": True})
    compiled: list[jinja2.Template] = []

    def compile_() -> dict[str, object]:
        compiled.append(_compile(first["template"]))
        return {"variables": _variables(first["template"])}

    _bounded(first["seconds"])
    answer = _attempt(compile_)
    _bounded(0)
    _write(out, answer)
    while compiled:
        request = _read(source)
        _bounded(first["seconds"])
        answer = _attempt(partial(_render, compiled[0], request))
        _bounded(0)
        _write(out, answer)


if __name__ == "__main__":
    main()
