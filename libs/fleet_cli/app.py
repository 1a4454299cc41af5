"""The `lorafleet` command: every group and command in one place."""

from __future__ import annotations

import logging

from fleet_cli.commands import backup, chat, demo, demo_loop, keeping, provision, status, up
from fleet_cli.commands import lifecycle as lifecycle_commands
from fleet_cli.commands.adapters import adapters
from fleet_cli.commands.answers import answers
from fleet_cli.commands.console import console
from fleet_cli.commands.credentials import credentials
from fleet_cli.commands.data import data
from fleet_cli.commands.dlq import dlq
from fleet_cli.commands.evaluations import evaluations
from fleet_cli.commands.events import events
from fleet_cli.commands.golden import golden
from fleet_cli.commands.jobs import jobs
from fleet_cli.commands.keys import keys
from fleet_cli.commands.lifecycle import lifecycle
from fleet_cli.commands.models import models
from fleet_cli.commands.policies import policies
from fleet_cli.commands.registry import registry
from fleet_cli.commands.retraining import retraining
from fleet_cli.commands.route import route
from fleet_cli.commands.token import token
from fleet_cli.group import CommandGroup

root = CommandGroup(
    "Run the whole life of LoRA adapters: data, train, register, evaluate, approve, serve, feedback.", completion=True
)

for add in (
    up.add,
    backup.add,
    status.add,
    provision.add,
    lifecycle_commands.add_train,
    chat.add,
    demo.add,
    demo_loop.add,
    keeping.add_gc,
):
    add(root)
for group, name in (
    (lifecycle, "lifecycle"),
    (data, "data"),
    (jobs, "jobs"),
    (retraining, "retraining"),
    (adapters, "adapters"),
    (policies, "policies"),
    (registry, "registry"),
    (answers, "answers"),
    (golden, "golden"),
    (evaluations, "evaluations"),
    (events, "events"),
    (dlq, "dlq"),
    (models, "models"),
    (route, "route"),
    (keys, "keys"),
    (token, "token"),
    (console, "console"),
    (credentials, "credentials"),
):
    root.add(group, name)


def main() -> None:
    """Entry point."""
    # asyncio warns of a detail of nats-py at the end of each TLS connection, which tells a reader nothing.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    root.typer(prog_name="lorafleet")


if __name__ == "__main__":
    main()
