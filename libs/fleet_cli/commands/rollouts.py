"""`lorafleet adapters rollout`: how a new version of a family takes over, and a human's hand in it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group

from fleet_cli.commands.options import ReasonOption
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from fleet_events.v1 import DeliveryMode
from lorafleet import calls
from lorafleet.errors import BadInput
from lorafleet.responses import Evidence, FamilyRollouts


class Action(StrEnum):
    """What to do with a rollout."""

    SHOW = "show"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll-back"


def add(group: CommandGroup) -> None:
    """Add the command to `adapters`."""

    @group.command("rollout")
    def rollout(
        session: Session,
        *,
        family: Annotated[str, typer.Argument(metavar="FAMILY", help="Family, for example shop-lora.")],
        action: Annotated[Action, typer.Argument(help="What to do with its rollout.")] = Action.SHOW,
        candidate: Annotated[
            str, typer.Option("--candidate", help="Approved version to start with (default: the highest).")
        ] = "",
        mode: Annotated[
            DeliveryMode | None, typer.Option("--mode", help="Mode to start in (default: the policy's).")
        ] = None,
        reason: ReasonOption = "",
    ) -> None:
        """Show, start, pause, resume, advance, promote or roll back the rollout of a family's new version."""
        if candidate and action is not Action.START:
            raise BadInput("--candidate", "names the version to start with: it goes with `start` alone")
        if mode is not None and action is not Action.START:
            raise BadInput("--mode", "goes with `start` alone; a rollout keeps the rules that it began with")
        if action is Action.ROLL_BACK and not reason.strip():
            raise BadInput("--reason", "is missing; a roll-back requires a reason")
        match action:
            case Action.SHOW:
                found = session.client.call(calls.rollout(family))
            case Action.START:
                found = session.client.call(calls.start_rollout(family, candidate, mode, reason))
            case _:
                found = session.client.call(calls.move_rollout(family, action.value, reason))
        session.answer(found, _shown(found))


def _shown(found: FamilyRollouts) -> Group | str:
    newest = found.rollout
    if newest is None:
        return f"{found.family}: no version was rolled out yet"
    head = {
        "rollout": newest.rollout_id,
        "mode": newest.mode,
        "state": "paused" if newest.paused and newest.state == "running" else newest.state,
        "new version": newest.candidate_id,
        "active version": newest.incumbent_id,
        "step": f"{newest.step + 1} of {newest.steps}, {newest.share:.1%} of the callers",
        "next" if newest.state == "running" else "reason": newest.next,
    }
    columns = ("METRIC", "CANDIDATE", "N", "INCUMBENT", "N", "DIFFERENCE", "EVIDENCE", "LINE")
    rows = [_row(one) for one in newest.evidence]
    return Group(facts(head), table(columns, rows))


def _row(one: Evidence) -> tuple[object, ...]:
    return (
        one.metric,
        _number(one.candidate),
        one.candidate_outcomes,
        _number(one.incumbent),
        one.incumbent_outcomes,
        f"{one.ci_low:+.3f} to {one.ci_high:+.3f}",
        f"{one.log_evidence:.2f}",
        f"{one.line:.2f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
