"""What every command gets: the fleet's home, where to print, and how."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import BaseModel
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lorafleet.clients import FleetClient
from lorafleet.home import FleetHome


def as_plain(value: object) -> object:
    """JSON-ready form of models, lists and mappings of them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """The group ends the command; rich would end it as failed."""
        raise BrokenPipeError


def _console(terminal: bool) -> Console:
    # A table in a file is not folded to 80 columns.
    return _Output(highlight=False) if terminal else _Output(highlight=False, soft_wrap=True, width=200)


@dataclass(frozen=True)
class Session:
    """One run of a command. Answers go to stdout, notes about them to stderr."""

    home: FleetHome
    as_json: bool = False
    out: Console = field(default_factory=lambda: _console(sys.stdout.isatty()))
    notes: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    @cached_property
    def client(self) -> FleetClient:
        """The fleet's services, as this session's token may use them."""
        return FleetClient(self.home)

    def note(self, text: str) -> None:
        """A line for the reader, never part of the answer; silent with --json."""
        if not self.as_json:
            self.notes.print(Text(text))

    def json(self, value: object) -> None:
        """One JSON value, on one line where the output is read by a program."""
        text = json.dumps(as_plain(value), ensure_ascii=False, indent=2 if self.out.is_terminal else None)
        print(text, file=self.out.file, flush=True)

    def json_line(self, value: object) -> None:
        """One JSON value on one line, for outputs of several."""
        print(json.dumps(as_plain(value), ensure_ascii=False), file=self.out.file, flush=True)

    def answer(self, value: object, shown: Table | Text | Group | str) -> None:
        """The command's answer: `value` with --json, else `shown`."""
        if self.as_json:
            self.json(value)
        else:
            self.out.print(Text(shown) if isinstance(shown, str) else shown)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """A plain table; cells are text, never markup."""
    made = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(Text("–" if cell is None or cell == "" else str(cell)) for cell in row))
    return made


def facts(pairs: Mapping[str, object]) -> Table:
    """Name and value, one pair a line."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", (), [], {}):
            made.add_row(name, Text(_brief(value)))
    return made


def _brief(value: object) -> str:
    """Nested values on one line, without quotes and braces at the top."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_brief(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, list | tuple):
        return "; ".join(_brief(one) for one in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
