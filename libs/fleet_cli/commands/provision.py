"""`lorafleet provision`: streams, durable consumers and tables as this version requires them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fleet_cli.bus import run_on_bus
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_kit import migrate, provision
from fleet_kit.drift import Drift
from lorafleet import bus
from lorafleet.errors import ExitCode, FleetError


def add(root: CommandGroup) -> None:
    """Add `provision` to the root."""

    @root.command("provision")
    def provision_(
        session: Session,
        *,
        check: Annotated[bool, typer.Option("--check", help="Only report; exit code 1 on drift.")] = False,
        replicas: Annotated[int, typer.Option("--replicas", min=1, max=5, help="Replicas of each stream.")] = 1,
        migrations: Annotated[
            bool, typer.Option("--migrations/--no-migrations", help="Migrate the services' tables too.")
        ] = True,
    ) -> None:
        """Create or correct streams and durable consumers, and run migrations; report what differed.

        Exit code 1 while something differs.
        """

        async def streams() -> list[Drift]:
            async with bus.connect(session.home) as client:
                return await provision.provision(client.jetstream(), replicas=replicas, repair=not check)

        drift = run_on_bus(streams)
        migrated = [] if check or not migrations else _migrate(session)
        mended = all(one.mended for one in drift)
        lines = [f"{'corrected' if one.mended else 'drift'}: {one}" for one in drift]
        lines += [f"migrated: {name}" for name in migrated]
        session.answer(
            {
                "drift": [asdict(one) for one in drift],
                "repaired": mended,
                "migrated": migrated,
            },
            "\n".join(lines) or "streams and durable consumers match the topology",
        )
        if not mended:
            raise typer.Exit(ExitCode.FAILED)


def _migrate(session: Session) -> list[str]:
    """Run the migrations of every service whose database address is known."""
    done = []
    for name, service in session.home.file.services.items():
        url = service.env.get("LORAFLEET_DATABASE_URL")
        if not url:
            continue
        try:
            migrate.migrate(name, url, session.home.ca_file)
        except Exception as error:
            raise FleetError(f"migrations of {name} failed: {error}") from error
        done.append(name)
    return done
