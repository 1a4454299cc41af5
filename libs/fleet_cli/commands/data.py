"""`lorafleet data`: training samples."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_cli import calls
from fleet_cli.commands.options import DomainOption
from fleet_cli.faults import BadInput
from fleet_cli.files import read_lines, to_ndjson
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, table

data = CommandGroup("Record training samples; list the data sets frozen from them.")

REQUIRED = ("prompt", "completion")


def read_samples(name: str, option: str) -> list[dict[str, object]]:
    """Training samples of a JSONL file; raises `BadInput` at the first bad line."""
    records = read_lines(name, option, REQUIRED)
    for number, record in enumerate(records, start=1):
        rating = record.get("rating")
        if rating is not None and not (isinstance(rating, int | float) and 0 <= rating <= 5):
            raise BadInput(option, f"{name} sample {number}: rating is {rating!r}; use a number from 0 to 5")
    return records


@data.command("import")
def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl|-", help='Lines {"prompt", "completion", "rating"?}.')],
    domain: DomainOption,
) -> None:
    """Record the samples of a JSONL file for a domain."""
    records = read_samples(file, "FILE")
    recorded = session.client.call(calls.record_samples(domain, to_ndjson(records)))
    session.answer(recorded, f"{recorded.added} samples recorded for {domain}, {recorded.duplicates} were known")


@data.command("list")
def list_(session: Session) -> None:
    """List frozen data sets, newest first; `train --dataset ID` trains on one."""
    found = session.client.call(calls.datasets())
    rows = [(one.dataset_id, one.domain, one.samples, one.query) for one in found]
    session.answer(found, table(("DATA SET", "DOMAIN", "SAMPLES", "QUERY"), rows))
