"""`lorafleet dlq`: the dead letters, with their reasons, and their replay."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fleet_cli.bus import run_on_bus
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from fleet_kit import dead_letters
from fleet_kit.dead_letters import DeadLetter
from lorafleet import bus
from lorafleet.errors import BadInput

dlq = CommandGroup("List, show and replay dead letters.")

Sequence = Annotated[
    int, typer.Argument(metavar="NUMBER", help="Number of the dead letter, as `dlq list` shows it.", min=1)
]


def plain(letter: DeadLetter) -> dict[str, object]:
    """A dead letter as JSON; its body as the object it holds, where it holds one."""
    body = letter.body.decode(errors="replace")
    try:
        content: object = json.loads(body)
    except ValueError:
        content = body
    origin = {"sequence": letter.origin.sequence, "time": letter.origin.time.isoformat()}
    return {**asdict(letter), "origin": origin, "headers": dict(letter.headers), "body": content}


@dlq.command("list")
def list_(
    session: Session,
    consumer: Annotated[str | None, typer.Option("--consumer", help="Only this durable consumer.")] = None,
) -> None:
    """List dead letters, oldest first."""

    async def read() -> list[DeadLetter]:
        async with bus.connect(session.home) as client:
            return [letter async for letter in dead_letters.list_dead(client.jetstream(), consumer)]

    found = run_on_bus(read)
    rows = [(one.sequence, one.time, one.consumer, one.deliveries, one.reason) for one in found]
    shown = table(("NUMBER", "TIME", "CONSUMER", "TRIES", "REASON"), rows) if rows else "no dead letters"
    session.answer([plain(one) for one in found], shown)


@dlq.command("show")
def show(session: Session, sequence: Sequence) -> None:
    """Show one dead letter with its headers and body."""

    async def read() -> DeadLetter:
        async with bus.connect(session.home) as client:
            return await dead_letters.show(client.jetstream(), sequence)

    try:
        letter = run_on_bus(read)
    except LookupError as error:
        raise BadInput("NUMBER", str(error)) from error
    content = plain(letter)
    content["headers"] = "\n".join(f"{name}: {value}" for name, value in letter.headers.items())
    content["origin"] = f"message {letter.origin.sequence} of {letter.origin.time:%Y-%m-%d %H:%M:%S}"
    content["body"] = json.dumps(content["body"], ensure_ascii=False, indent=2)
    session.answer(plain(letter), facts(content))


@dlq.command("replay")
def replay(session: Session, sequence: Sequence) -> None:
    """Replay a dead letter's event; consumers that already handled it ignore the replay."""

    async def publish() -> DeadLetter:
        async with bus.connect(session.home) as client:
            return await dead_letters.replay(client.jetstream(), sequence)

    try:
        letter = run_on_bus(publish)
    except (LookupError, ValueError) as error:
        raise BadInput("NUMBER", str(error)) from error
    session.answer(plain(letter), f"event {letter.event_id} was published again on {letter.subject}")
