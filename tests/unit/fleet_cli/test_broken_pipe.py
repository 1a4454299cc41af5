"""A reader that ends early, as `head` does, ends the command quietly."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

COMMANDS = """
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table

root = CommandGroup("Prints to a reader that is gone.")
inner = CommandGroup("The same, one level down.")
root.add(inner, "dlq")

@inner.command("list")
def list_(session: Session) -> None:
    rows = [(number, "text" * 10) for number in range(1000)]
    session.answer(rows, table(("NUMBER", "TEXT"), rows))

@inner.command("tail")
def tail(session: Session) -> None:
    for number in range(1000):
        session.json_line({"number": number})

root.typer(prog_name="lorafleet")
"""


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["tail"]])
def test_a_reader_that_ends_early_ends_the_command_without_a_word(arguments: list[str]) -> None:
    assert ended_early([sys.executable, "-c", COMMANDS, "dlq", *arguments, "--home", "/tmp"]) == (141, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["adapters", "--help"], ["adapters", "import", "--help"], ["dlq"]])
def test_help_pages_end_the_same_way(arguments: list[str]) -> None:
    assert ended_early([sys.executable, "-m", "fleet_cli.app", *arguments]) == (141, b"")


def ended_early(command: list[str]) -> tuple[int, bytes]:
    """Exit code and standard error of a command whose reader is gone before it writes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        output = process.stderr.read()
        return process.wait(30), output
