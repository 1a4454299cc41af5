"""`lorafleet golden`: the held-out samples that adapters are evaluated with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from fleet_cli.commands.options import DomainOption, OptionalDomain
from fleet_cli.files import read_lines, to_ndjson
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from lorafleet import calls
from lorafleet.errors import BadInput, ServiceError

golden = CommandGroup("Create, import, export, label, list and show golden data sets.")

REQUIRED = ("prompt", "expected_output")
DIFFICULTIES = ("easy", "medium", "hard")
DatasetId = Annotated[str, typer.Argument(metavar="DATASET_ID", help="Id of the golden data set.")]
Reference = Annotated[
    str, typer.Argument(metavar="DATASET_ID[@VERSION]", help="Id of the golden data set (default: its newest version).")
]
VersionOption = Annotated[str, typer.Option("--version", help="Version of the data set, X.Y.Z.")]
DescriptionOption = Annotated[str, typer.Option("--description", help="Purpose of the data set (default: none).")]


def read_golden(name: str, option: str) -> list[dict[str, object]]:
    """Golden samples of a JSONL file; raises `BadInput` at the first bad line."""
    records = read_lines(name, option, REQUIRED)
    for number, record in enumerate(records, start=1):
        difficulty = record.get("difficulty", "medium")
        if difficulty not in DIFFICULTIES:
            raise BadInput(
                option, f"{name} sample {number}: difficulty is {difficulty!r}; use one of {', '.join(DIFFICULTIES)}"
            )
    return records


def checked_version(version: str) -> str:
    """A SemVer X.Y.Z; raises `BadInput`."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise BadInput("--version", f"{version!r} is not a version; use X.Y.Z, for example 1.0.0")
    return version


@golden.command("create")
def create(
    session: Session,
    dataset_id: DatasetId,
    domain: DomainOption,
    version: VersionOption = "1.0.0",
    description: DescriptionOption = "",
) -> None:
    """Create an empty golden data set."""
    made = session.client.call(calls.create_golden(dataset_id, domain, checked_version(version), description))
    session.answer(made, f"created {made.dataset_id} for {made.domain}, version {made.version}")


@golden.command("import")
def import_(
    session: Session,
    *,
    dataset_id: DatasetId,
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl|-", help='Lines {"prompt", "expected_output", ...}.')],
    domain: Annotated[
        str, typer.Option("--domain", help="Domain of a new data set (default: the data set exists).")
    ] = "",
    version: VersionOption = "1.0.0",
    replace: Annotated[bool, typer.Option("--replace", help="Replace all samples by those of the file.")] = False,
) -> None:
    """Add the samples of a JSONL file to a golden data set; a version that an evaluation used is never changed."""
    records = read_golden(file, "FILE")
    if domain:
        ensure_golden(session, dataset_id, domain, checked_version(version))
    changed = session.client.call(calls.add_golden_samples(dataset_id, to_ndjson(records), replace=replace))
    what = f"{changed.read} samples read; {dataset_id} version {changed.version} has {changed.total_samples}"
    session.answer(changed, what if changed.changed else f"{what}, as before")


def ensure_golden(session: Session, dataset_id: str, domain: str, version: str = "1.0.0") -> None:
    """Create a golden data set unless it is there; raises `BadInput` if it is there for another domain."""
    try:
        found = session.client.call(calls.golden(dataset_id))
    except ServiceError as refused:
        if refused.status != 404:
            raise
        session.client.call(calls.create_golden(dataset_id, domain, version, f"Golden samples of {domain}"))
        return
    if found.domain != domain:
        raise BadInput("--domain", f"{dataset_id!r} belongs to domain {found.domain!r}, not to {domain!r}")


def expect_golden(session: Session, reference: str, domain: str) -> None:
    """Check the golden data set before minutes are spent on what would be judged with it; raises `BadInput`."""
    try:
        found = session.client.call(calls.golden(reference))
    except ServiceError as refused:
        if refused.status == 404:
            raise BadInput(
                "--golden-dataset", f"{reference!r} does not exist; `lorafleet golden list` shows those that do"
            ) from refused
        raise
    if found.domain != domain:
        raise BadInput("--golden-dataset", f"{reference!r} belongs to domain {found.domain!r}, not to {domain!r}")


@golden.command("export")
def export(
    session: Session,
    dataset_id: Reference,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write (default: stdout).")] = None,
) -> None:
    """Write every sample as JSONL."""
    records = session.client.call(calls.export_golden(dataset_id))
    if output is None:
        for record in records:
            print(json.dumps(record, ensure_ascii=False), file=session.out.file)
        return
    try:
        output.write_bytes(to_ndjson(records))
    except OSError as error:
        raise BadInput("--output", f"{output} cannot be written: {error.strerror}") from error
    session.answer({"file": str(output), "samples": len(records)}, f"{len(records)} samples written to {output}")


@golden.command("label")
def label(
    session: Session,
    evaluation_id: Annotated[str, typer.Argument(metavar="EVALUATION_ID", help="Id of the evaluation.")],
    sample_id: Annotated[str, typer.Argument(metavar="SAMPLE_ID", help="Id of the golden sample.")],
    score: Annotated[float, typer.Argument(help="Score on the judge's scale, 0 to 100.", min=0, max=100)],
    note: Annotated[str, typer.Option("--note", help="Reason for the score (default: none).")] = "",
) -> None:
    """Label a judged answer with a score of your own, against which judges are measured."""
    session.answer(
        session.client.call(calls.label_answer(evaluation_id, sample_id, score, note)),
        f"{score:g} for the answer to {sample_id} in evaluation {evaluation_id}",
    )


@golden.command("agreement")
def agreement(
    session: Session,
    judge: Annotated[str, typer.Argument(help="Name of the judge in evaluations, for example gpt/1+0f3c….")],
    domain: DomainOption,
) -> None:
    """Show how far a judge agrees with human labels."""
    found = session.client.call(calls.judge_agreement(judge, domain))
    session.answer(found, facts(found.model_dump(mode="json")))


@golden.command("calibrate")
def calibrate(
    session: Session,
    judge: Annotated[str, typer.Argument(help="As evaluations name it, for example gpt/1+0f3c….")],
    domain: DomainOption,
) -> None:
    """Fit a judge's scores to people's, for the panels that it is a member of; needs 20 labelled answers."""
    fitted = session.client.call(calls.calibrate_judge(judge, domain))
    session.answer(fitted, facts(fitted.model_dump(mode="json")))


@golden.command("list")
def list_(session: Session, domain: OptionalDomain = None) -> None:
    """List golden data sets."""
    found = session.client.call(calls.goldens(domain))
    rows = [(one.dataset_id, one.domain, one.version, one.total_samples, one.description) for one in found]
    session.answer(found, table(("DATA SET", "DOMAIN", "VERSION", "SAMPLES", "DESCRIPTION"), rows))


@golden.command("show")
def show(session: Session, dataset_id: Reference) -> None:
    """Show one golden data set."""
    found = session.client.call(calls.golden(dataset_id))
    session.answer(found, facts(found.model_dump(mode="json")))
