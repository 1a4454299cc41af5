"""Every command and option explains itself, and the shell completes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from fleet_cli.app import root
from services.trainer.training.configuration import Configuration

pytestmark = pytest.mark.unit

VERBS = {
    *(
        "Activate",
        "Add",
        "Approve",
        "Ask",
        "Build",
        "Cancel",
        "Compare",
        "Convert",
        "Correct",
        "Create",
        "Deactivate",
        "Delete",
    ),
    *(
        "Describe",
        "Fit",
        "Follow",
        "Hold",
        "Import",
        "Label",
        "List",
        "Migrate",
        "Mint",
        "Pause",
        "Prepare",
        "Open",
        "Print",
        "Publish",
        "Rate",
    ),
    *(
        "Record",
        "Register",
        "Reject",
        "Release",
        "Replace",
        "Replay",
        "Request",
        "Resume",
        "Retry",
        "Revoke",
        "Run",
        "Save",
        "Set",
        "Show",
    ),
    *("Start", "Stream", "Train", "Upload", "Write"),
}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every group and command with its path."""
    yield " ".join(path) or "lorafleet", command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = dict(walk(get_command(root.typer)))


@pytest.mark.parametrize("path", COMMANDS)
def test_help_begins_with_a_verb_and_ends_as_a_sentence(path: str) -> None:
    first, _, _ = (COMMANDS[path].help or "").partition("\n")
    assert first.split()[0].rstrip(",") in VERBS, first
    assert first.endswith("."), first


@pytest.mark.parametrize("path", COMMANDS)
def test_every_argument_and_option_has_help_and_names_its_default(path: str) -> None:
    for one in COMMANDS[path].params:
        if one.name == "help":
            continue
        text = one.help or ""
        assert text, f"{path} {one.name} has no help"
        shown = one.required or one.is_flag if hasattr(one, "is_flag") else True
        if not shown and one.default in (None, "", ()):
            assert "default: " in text or text.startswith("Only "), f"{path} {one.opts[0]}: {text}"


def test_a_groups_help_names_what_its_commands_do() -> None:
    """`jobs` once left out three of its commands."""
    jobs = COMMANDS["jobs"]
    for name in jobs.commands:
        assert name in jobs.help.lower(), name


def test_the_options_of_a_training_stand_in_panels() -> None:
    panels: dict[str, list[str]] = {}
    for one in COMMANDS["train"].params:
        panels.setdefault(getattr(one, "rich_help_panel", None) or "Options", []).append(one.name)
    assert list(panels) == [
        "Options",
        "Data",
        "Objective",
        "Adapter",
        "Optimisation",
        "Checkpoints and validation",
        "Exports",
        "Registration and approval",
    ]
    assert {"query", "dataset", "min_rating"} <= set(panels["Data"])
    assert {"objective", "beta", "ranking_loss"} <= set(panels["Objective"])
    assert {"learning_rate", "batch_size", "seed"} <= set(panels["Optimisation"])
    assert {"checkpoint_steps", "validation_part"} <= set(panels["Checkpoints and validation"])
    assert panels["Exports"] == ["exports"]
    assert [one.name for one in COMMANDS["lifecycle run"].params if one.name in panels["Optimisation"]]


def test_the_defaults_of_hyperparameters_are_the_trainers() -> None:
    helps = {one.name: one.help or "" for one in COMMANDS["train"].params}
    for name, value in Configuration().values().items():
        if name in helps and isinstance(value, str | int | float) and value != "" and name not in ("alpha",):
            plain = f"{value:g}" if isinstance(value, float) else str(value)
            plain = ("yes" if value else "no") if isinstance(value, bool) else plain
            assert f"(default: {plain})" in helps[name], f"{name}: {helps[name]}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lorafleet jo", {"jobs"}),
        ("lorafleet jobs re", {"resume", "retry"}),
        ("lorafleet train --learn", {"--learning-rate"}),
        ("lorafleet train --method ", {"lora", "rslora", "qlora", "dora"}),
        ("lorafleet adapters list --status app", {"approved"}),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, expected: set[str]) -> None:
    completing = {
        "_LORAFLEET_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-m", "fleet_cli.app"]
    found = subprocess.run(command, env={**os.environ, **completing}, capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == expected


def test_the_completion_script_is_printed_for_the_shell() -> None:
    # Which shell it is, is found by the process's parents; here it is named.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "fleet_cli.app", "--show-completion", "bash"]
    shown = subprocess.run(command, env=named, capture_output=True, text=True, check=True)
    assert "_LORAFLEET_COMPLETE=complete_bash" in shown.stdout
