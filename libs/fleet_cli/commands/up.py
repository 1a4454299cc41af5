"""`lorafleet up`: the embedded stack in the foreground."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from lorafleet.errors import FleetError

if TYPE_CHECKING:
    from fleet_cli.stack import Fleet

FIRST_EVENT = """\
echo '{"domain": "my-domain", "method": "lora"}' | lorafleet events publish TrainingRequested - --dry-run"""


@contextmanager
def running(session: Session, *, tls: bool = False) -> Iterator[Fleet]:
    """The embedded stack, started; everything is stopped at the end, however that comes."""
    # Only the embedded stack needs its servers' packages; the other commands start without them.
    from fleet_cli.stack import Fleet, StackError

    fleet = Fleet(session.home.folder, tls=tls)
    signal.signal(signal.SIGTERM, _terminate)
    session.note("starting nats-server, PostgreSQL, the S3 gateway and six services (the first time takes a minute)")
    began = time.monotonic()
    try:
        fleet.start()
    except StackError as error:
        # What follows the first line is the end of a log.
        reason, _, log = str(error).partition("\n")
        raise FleetError(f"the stack did not start: {reason}", log) from error
    try:
        session.note(f"the fleet runs, started in {time.monotonic() - began:.1f} s")
        yield fleet
    finally:
        session.note("stopping everything")
        fleet.stop()
        session.note("all stopped")


def _terminate(number: int, _frame: object) -> None:
    """SIGTERM unwinds like Ctrl-C, so that everything is stopped in order."""
    raise SystemExit(128 + number)


def summary(fleet: Fleet, folder: Path) -> str:
    """Where everything is and what to do first."""
    info = fleet.info
    lines = [f"NATS       {info.nats_url}", f"S3         {info.s3_endpoint}  (bucket {info.s3_bucket})"]
    lines += [f"{name:<10} {service.url}" for name, service in info.services.items()]
    if info.ca_file is not None:
        lines += ["", f"Authority of their certificates: {info.ca_file}"]
    lines += ["", "Tokens, one file each:"]
    lines += [f"  {name:<10} {path}" for name, path in info.tokens.items()]
    home = f"--home {folder} " if folder != Path(".lorafleet") else ""
    lines += [
        "",
        "In another terminal:",
        f"  lorafleet status {home}",
        f"  lorafleet console open {home}",
        f"  lorafleet events tail {home}",
        f"  lorafleet data import FILE.jsonl --domain my-domain {home}",
        "and the first event, as any system would publish it (without --dry-run it is published):",
        f"  {FIRST_EVENT} {home}",
        "",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(line.rstrip() for line in lines)


def add(root: CommandGroup) -> None:
    """Add `up` to the root."""

    @root.command("up")
    def up(
        session: Session,
        *,
        tls: Annotated[
            bool, typer.Option("--tls", help="Serve HTTP, NATS and S3 over TLS, with an authority of this home.")
        ] = False,
    ) -> None:
        """Start the embedded stack and keep it running until Ctrl-C."""
        stop = threading.Event()
        with running(session, tls=tls) as fleet:
            # Both are the ordinary end of this command: exit code 0.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            info = fleet.info
            session.answer(
                {
                    "nats_url": info.nats_url,
                    "s3_endpoint": info.s3_endpoint,
                    "services": {name: service.url for name, service in info.services.items()},
                    "tokens": {name: str(path) for name, path in info.tokens.items()},
                    "timings": fleet.timings,
                },
                summary(fleet, session.home.folder),
            )
            while not stop.wait(0.5):
                pass
