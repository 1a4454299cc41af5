"""A typer group whose every command has --json and --home, and reports an error in one plain line."""

from __future__ import annotations

import dataclasses
import inspect
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import typer
from typer.core import TyperGroup

from fleet_cli.session import Session
from lorafleet.errors import ExitCode, FleetError
from lorafleet.home import FleetHome

Run = TypeVar("Run", bound=Callable[..., None])

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder of the fleet (default: $LORAFLEET_HOME or ./.lorafleet).")
]


class PlainGroup(TyperGroup):
    """Reports what is wrong with the command line in one line on stderr, exit code 2."""

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as error:
            # Typer and rich turn a broken pipe into an exit of their own; help pages are printed to nowhere by then.
            if isinstance(error.__context__, BrokenPipeError) or _reader_is_gone():
                _leave_quietly()
            raise
        except typer.TyperException as error:
            # A bare group has printed its help page and no message follows.
            if text := " ".join(error.format_message().split()):
                print(f"error: {text}", file=sys.stderr)
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(ExitCode.FAILED)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _reader_is_gone() -> bool:
    """Whether the reader of standard output has ended, as `head` does in `lorafleet events tail | head`."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLERR)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file, or a closed one
        return False


def _leave_quietly() -> NoReturn:
    """End as a program that the signal SIGPIPE ended; what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


class CommandGroup:
    """Collects commands that take a `Session` first; `typer` holds them for the root application."""

    def __init__(self, help: str, *, completion: bool = False) -> None:
        """`completion` adds the options that install or print the shell's completion: the root has them."""
        self.typer = typer.Typer(
            help=help, no_args_is_help=True, cls=PlainGroup, pretty_exceptions_enable=False, add_completion=completion
        )

    def add(self, other: CommandGroup, name: str) -> None:
        """Add another group to this one."""
        self.typer.add_typer(other.typer, name=name)

    def command(self, name: str) -> Callable[[Run], Run]:
        """Register a command; its first parameter is the session, the rest are its options."""

        def register(run: Run) -> Run:
            self.typer.command(name)(_with_session(run))
            return run

        return register


def _with_session(run: Callable[..., None]) -> Callable[..., None]:
    """`run` as typer wants it: the session made from --json and --home, dataclass parameters as one option a field."""
    given = get_type_hints(run, include_extras=True)
    own: list[inspect.Parameter] = []
    bundles: dict[str, type] = {}
    for parameter in list(inspect.signature(run).parameters.values())[1:]:
        annotation = given[parameter.name]
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            bundles[parameter.name] = annotation
            own += _options_of(annotation)
        else:
            own.append(_option(parameter.name, annotation, parameter.default))
    own.append(_option("as_json", JsonOption, False))
    own.append(_option("home", HomeOption, None))

    def command(*, as_json: bool, home: Path | None, **options: object) -> None:
        try:
            for name, bundle in bundles.items():
                fields = [field.name for field in dataclasses.fields(bundle)]
                options[name] = bundle(**{field: options.pop(field) for field in fields})
            run(Session(FleetHome.find(home), as_json), **options)
        except FleetError as fault:
            print(f"error: {fault}", file=sys.stderr)
            if fault.details:
                print(fault.details, file=sys.stderr)
            raise typer.Exit(fault.code) from fault

    # Typer reads names and types from these.
    command.__name__, command.__doc__ = run.__name__, run.__doc__
    command.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    return command


def _options_of(bundle: type) -> list[inspect.Parameter]:
    hints = get_type_hints(bundle, include_extras=True)
    return [
        _option(field.name, hints[field.name], field.default)
        if field.default is not dataclasses.MISSING
        else _option(field.name, hints[field.name], inspect.Parameter.empty)
        for field in dataclasses.fields(bundle)
    ]


def _option(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
