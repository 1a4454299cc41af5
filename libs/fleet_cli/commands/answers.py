"""`lorafleet answers`: where an answer comes from, which are recorded, and what became of feedback on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fleet_cli.group import CommandGroup
from fleet_cli.provenance import answer_lines
from fleet_cli.session import Session, table
from lorafleet import calls

answers = CommandGroup("Follow answers back to what they come from; list those recorded, and the feedback on them.")

Domain = Annotated[str | None, typer.Option("--domain", help="Only this domain.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Longest list.")]


@answers.command("provenance")
def provenance(
    session: Session,
    generation_id: Annotated[str, typer.Argument(metavar="GENERATION_ID", help="The `id` of the response.")],
) -> None:
    """Show which adapters gave an answer, with the digest chain of each down to its training data."""
    found = session.client.call(calls.answer_provenance(generation_id))
    session.answer(found, "\n".join(answer_lines(found)))


class FeedbackState(StrEnum):
    """What became of feedback on an answer."""

    WAITING = "waiting"
    USED = "used"
    UNUSABLE = "unusable"


@answers.command("list")
def list_(session: Session, domain: Domain = None, limit: Limit = 100) -> None:
    """List recorded answers, newest first."""
    found = session.client.call(calls.recorded_answers(domain, limit))
    rows = [
        (one.answered_at, one.domain, one.generation_id, one.adapter_id or "base model", one.answer) for one in found
    ]
    session.answer(found, table(("answered", "domain", "generation", "adapter", "answer"), rows))


@answers.command("feedback")
def feedback(
    session: Session,
    domain: Domain = None,
    state: Annotated[
        FeedbackState | None, typer.Option("--state", help="Only what waits, is used, or is unusable.")
    ] = None,
    limit: Limit = 100,
) -> None:
    """List feedback on answers and what became of it, newest first; what is unusable with the reason."""
    found = session.client.call(calls.answer_feedback(domain, state.value if state else None, limit))
    rows = [(one.given_at, one.generation_id, one.rater, one.summary, one.state, one.reason) for one in found]
    session.answer(found, table(("given", "generation", "by", "feedback", "state", "reason"), rows))
