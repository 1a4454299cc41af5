"""`lorafleet provision`: streams, durables and tables as the code wants them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fleet_cli import bus
from fleet_cli.client.errors import ExitCode, Fault
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session
from fleet_kit import migrate, provision
from fleet_kit.drift import Drift


def add(root: CommandGroup) -> None:
    """Hang `provision` under the root."""

    @root.command("provision")
    def provision_(
        session: Session,
        *,
        check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 on drift.")] = False,
        replicas: Annotated[int, typer.Option("--replicas", min=1, max=5, help="Copies of each stream.")] = 1,
        migrations: Annotated[bool, typer.Option(help="Also bring the services' tables up to date.")] = True,
    ) -> None:
        """Make streams and durables from the topology table and run migrations; report what differed.

        Exit code 1 while something differs.
        """

        async def streams() -> list[Drift]:
            async with bus.connect(session.home) as client:
                return await provision.provision(client.jetstream(), replicas=replicas, repair=not check)

        drift = bus.run(streams)
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
            "\n".join(lines) or "streams and durables are as the topology says",
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
            migrate.migrate(name, url)
        except Exception as error:
            raise Fault(f"migrations of {name} failed: {error}") from error
        done.append(name)
    return done
