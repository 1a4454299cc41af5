"""`lorafleet events`: follow the events on the bus, and publish one."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.text import Text

from fleet_cli.bus import as_nats_pub, event_type, run_on_bus
from fleet_cli.files import read_text
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_events import Event
from fleet_events.topology import row_of
from fleet_kit.cloudevents import Outgoing
from lorafleet import bus
from lorafleet.bus import Received
from lorafleet.errors import BadInput
from lorafleet.event_bus import require_upstream

events = CommandGroup("Follow events, or publish one.")

TypeOption = Annotated[
    list[str] | None, typer.Option("--type", help="Only this event, for example Approved; may be repeated.")
]
# What a line shows first, where an event has it.
HEADLINE = ("job_id", "adapter_id", "family", "domain", "state", "step", "score", "rating", "reason", "by")


@events.command("tail")
def tail(
    session: Session,
    *,
    type_: TypeOption = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Start with the oldest event kept.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for further events, or stop at the newest.")
    ] = True,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after this many events (default: no limit).")
    ] = None,
) -> None:
    """Print every event as it happens, one a line, until Ctrl-C."""
    subjects = [row_of(event_type(name, "--type")).subject for name in type_ or []]

    async def print_all() -> None:
        async with bus.connect(session.home) as client:
            seen = 0
            async for received in bus.follow(client, after={} if from_start else None, subjects=subjects, wait=follow):
                show(session, received)
                seen += 1
                if seen == count:
                    return

    run_on_bus(print_all)


def show(session: Session, received: Received) -> None:
    """One event on one line."""
    if session.as_json:
        print(json.dumps(as_json(received), ensure_ascii=False), file=session.out.file, flush=True)
        return
    line = Text(f"{received.at.astimezone():%H:%M:%S}  {received.sequence:>6}  ")
    line.append(f"{received.type:<20}", style="bold")
    line.append("  " + (headline(received.event) if received.event else f"UNREADABLE {received.fault}"))
    session.out.print(line, soft_wrap=True)


def as_json(received: Received) -> dict[str, object]:
    """Everything of a message, for programs."""
    body: object = received.body.decode(errors="replace")
    if received.event is not None:
        body = json.loads(received.event.to_json())
    return {
        "stream": received.stream,
        "sequence": received.sequence,
        "subject": received.subject,
        "time": received.at.isoformat(),
        "type": received.type,
        "headers": dict(received.headers),
        "body": body,
        **({"fault": received.fault} if received.fault else {}),
    }


def headline(event: Event) -> str:
    """What the event is about, in a few words."""
    values = event.model_dump(exclude_defaults=True, by_alias=False)
    nested = values.get("adapter")
    if isinstance(nested, dict):
        values = {**nested, **values}
    dataset = values.get("dataset")
    words = [f"{name}={_brief(values[name])}" for name in HEADLINE if name in values]
    if isinstance(dataset, dict):
        words.append(f"samples={dataset.get('samples')}")
    return " ".join(words)


def _brief(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 and " " not in text else json.dumps(text[:80], ensure_ascii=False)


@events.command("publish")
def publish(
    session: Session,
    *,
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="Event type, for example TrainingRequested.")],
    body: Annotated[str, typer.Argument(metavar="BODY.json|-", help="ProtoJSON body; - reads standard input.")],
    subject: Annotated[
        str, typer.Option("--subject", help="ce-subject: what the event is about (default: from the body).")
    ] = "",
    source: Annotated[str, typer.Option("--source", help="ce-source: the publisher.")] = "upstream",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the `nats pub` command instead of publishing.")
    ] = False,
) -> None:
    """Publish one event, and print its exact subject, headers and body."""
    event = parse(upstream_type(type_), read_text(body, "BODY"))
    message = bus.outgoing(event, subject or bus.entity_of(event), source)
    if dry_run:
        # An upstream system may be developed before the fleet runs: the address is optional.
        url = session.home.file.nats_url or "nats://127.0.0.1:4222"
        session.answer(
            _wire(message), as_nats_pub(message, url, session.home.nats_seed("upstream"), session.home.ca_file)
        )
        return

    async def send() -> int:
        async with bus.connect(session.home, user="upstream") as client:
            return await bus.publish(client, message)

    sequence = run_on_bus(send)
    lines = [f"subject: {message.subject}"]
    lines += [f"{name}: {value}" for name, value in message.headers.items()]
    lines += ["", message.body.decode(), "", f"stored as message {sequence}"]
    session.answer({**_wire(message), "sequence": sequence}, "\n".join(lines))


def upstream_type(name: str) -> type[Event]:
    """An event that upstream systems may publish; the bus refuses all others. Raises `BadInput`."""
    event = event_type(name)
    require_upstream(event, "TYPE")
    return event


def parse(event: type[Event], text: str) -> Event:
    """The event in a ProtoJSON text; raises `BadInput` naming the first field at fault."""
    try:
        return event.from_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] in ("missing", "json_invalid") else f", not {first['input']!r}"
        raise BadInput("BODY", f"{event.__name__}{'.' + where if where else ''}: {first['msg']}{found}") from error


def _wire(message: Outgoing) -> dict[str, object]:
    return {"subject": message.subject, "headers": dict(message.headers), "body": json.loads(message.body)}
