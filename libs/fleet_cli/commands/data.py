"""`lorafleet data`: training samples, and the data sets that adapters are trained on."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from fleet_cli.commands import forgetting
from fleet_cli.commands.options import DomainOption
from fleet_cli.data_recipe import SourceOptions, merged, read_recipe
from fleet_cli.files import read_lines, save, to_ndjson
from fleet_cli.group import CommandGroup
from fleet_cli.session import Session, facts, table
from lorafleet import calls
from lorafleet.errors import BadInput, FleetError
from lorafleet.responses import DatasetBuild, DroppedRecords

data = CommandGroup(
    "Record training samples; upload files; build, list, show and export data sets; forget people, and show erasures."
)
forgetting.add(data)

REQUIRED = ("prompt", "completion")
_ASK_SECONDS = 0.3
DatasetId = Annotated[str, typer.Argument(metavar="DATASET_ID", help="Id of the data set, as `data list` shows it.")]


class Unusable(StrEnum):
    """What a build does with a row that makes no record."""

    REFUSE = "refuse"
    DROP = "drop"


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
    session.answer(
        recorded, f"{recorded.added} samples recorded for {domain}, {recorded.duplicates} were already known"
    )


@data.command("upload")
def upload(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSONL (.jsonl, .ndjson), CSV (.csv) or Parquet (.parquet).")
    ],
    domain: DomainOption,
) -> None:
    """Upload a file for recipes of data sets."""
    uploaded = session.client.call(calls.upload_data(domain, _readable(file)))
    session.answer(uploaded, f"{uploaded.upload_id}  {uploaded.filename}, {uploaded.bytes} bytes")


@data.command("uploads")
def uploads(session: Session) -> None:
    """List uploaded files, newest first."""
    found = session.client.call(calls.uploads())
    rows = [(one.upload_id, one.domain, one.filename, one.bytes, one.created_at) for one in found]
    session.answer(found, table(("UPLOAD", "DOMAIN", "FILE", "BYTES", "UPLOADED"), rows))


@data.command("delete-upload")
def delete_upload(
    session: Session,
    upload_id: Annotated[str, typer.Argument(metavar="UPLOAD_ID", help="Id of the upload.")],
    domain: DomainOption,
) -> None:
    """Delete an uploaded file; data sets that were built from it stay."""
    deleted = session.client.call(calls.delete_upload(domain, upload_id))
    session.answer(deleted, f"deleted {deleted.filename}, {deleted.bytes} bytes")


@data.command("build")
def build(
    session: Session,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the data set; its versions count up from 1.")],
    domain: DomainOption,
    files: Annotated[
        list[Path] | None, typer.Option("--file", help="JSONL, CSV or Parquet file; may be repeated (default: none).")
    ] = None,
    query: Annotated[str, typer.Option("--query", help="Words of a full-text query (default: none).")] = "",
    document_store: Annotated[
        str, typer.Option("--document-store", help="Document store to query (default: the recorded samples).")
    ] = "",
    database: Annotated[
        str, typer.Option("--database", help="Name of a configured PostgreSQL to query (default: none).")
    ] = "",
    sql: Annotated[str, typer.Option("--sql", help="SELECT to run on --database (default: none).")] = "",
    prefix: Annotated[
        str, typer.Option("--s3", help="Prefix below the domain's uploads in the object store (default: none).")
    ] = "",
    folder: Annotated[
        str, typer.Option("--folder", help="Folder that Hugging Face datasets saved (default: none).")
    ] = "",
    live: Annotated[bool, typer.Option("--live", help="Take all recorded samples of the domain.")] = False,
    min_rating: Annotated[
        float | None,
        typer.Option(
            "--min-rating",
            help="Minimum rating of recorded samples, 0 to 5; unrated ones are kept (default: any rating).",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=COLUMN",
            help='Column of a field, "prompt=title", or a template, "prompt=What is {title}?"; may be repeated '
            "(default: the column of the field's name).",
        ),
    ] = None,
    rating_best: Annotated[
        float | None, typer.Option("--rating-best", help="Best rating of the sources' own scale (default: 5).")
    ] = None,
    unusable: Annotated[
        Unusable | None,
        typer.Option(
            "--unusable",
            help="Where a row makes no record: refuse the build, or drop the row (default: refuse; documents: drop).",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option("--kind", help="completion, conversation, preference, ranking or rated (default: completion)."),
    ] = "",
    adapter_type: Annotated[
        str, typer.Option("--adapter-type", help="Type whose preset completes the recipe (default: none).")
    ] = "",
    validation_part: Annotated[
        float | None,
        typer.Option("--validation-part", help="Fraction of prompts held out for validation, 0 to 0.5 (default: 0)."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the validation split (default: 0).")] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the data, an SPDX identifier (default: none).")
    ] = "",
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="FILE|-", help="JSON or YAML recipe that the options extend (default: none)."),
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the data set is built, or only queue the build.")
    ] = True,
) -> None:
    """Build a data set from files, queries and recorded samples."""
    options = {
        "name": name,
        "domain": domain,
        "kind": kind,
        "adapter_type": adapter_type,
        "validation_part": validation_part,
        "seed": seed,
        "licence": licence,
    }
    written = read_recipe(recipe) if recipe else {}
    paths = [_readable(file) for file in files or ()]
    named = [file.name for file in paths]
    sources = SourceOptions(
        uploads=named,
        query=query,
        document_store=document_store,
        database=database,
        sql=sql,
        prefix=prefix,
        folder=folder,
        live=live,
        min_rating=min_rating,
        columns=columns or (),
        rating_best=rating_best,
        unusable=unusable.value if unusable else "",
    )
    merged(written, options, sources)  # checked before anything is uploaded
    sources = replace(
        sources, uploads=[session.client.call(calls.upload_data(domain, file)).upload_id for file in paths]
    )
    queued = session.client.call(calls.build_dataset(merged(written, options, sources)))
    if not wait:
        session.answer(queued, queued.build_id)
        return
    ended = _ended(session, queued.build_id)
    if ended.state == "failed":
        raise _failed(ended)
    made = session.client.call(calls.dataset(ended.dataset_id or ""))
    shown = f"{made.dataset_id}  {made.name} version {ended.version}: {made.samples} {made.kind} records"
    session.answer(ended, f"{shown}, {made.validation_samples} of them for validation")


@data.command("list")
def list_(
    session: Session, name: Annotated[str | None, typer.Option("--name", help="Only versions of this name.")] = None
) -> None:
    """List data sets, newest first; `train --dataset ID` trains on one."""
    found = session.client.call(calls.datasets(name))
    rows = [
        (one.dataset_id, one.domain, one.name, one.version, one.kind, one.samples, one.validation_samples, one.query)
        for one in found
    ]
    columns = ("DATA SET", "DOMAIN", "NAME", "VERSION", "KIND", "SAMPLES", "VALIDATION", "QUERY")
    session.answer(found, table(columns, rows))


@data.command("show")
def show(session: Session, dataset_id: DatasetId) -> None:
    """Show a data set."""
    found = session.client.call(calls.dataset(dataset_id))
    session.answer(found, facts(found.model_dump(mode="json")))


@data.command("card")
def card(session: Session, dataset_id: DatasetId) -> None:
    """Show the card of a data set: sources, filters, counts, split, licence."""
    session.json(session.client.call(calls.dataset_card(dataset_id)))


@data.command("dropped")
def dropped(
    session: Session,
    dataset_id: DatasetId,
    filter: Annotated[str | None, typer.Option("--filter", help="Only this filter.")] = None,
) -> None:
    """Show how many records each filter dropped, why, and samples of them."""
    found = session.client.call(calls.dataset_dropped(dataset_id, filter))
    session.answer(found, _dropped(found))


@data.command("export")
def export(
    session: Session,
    dataset_id: DatasetId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write (default: stdout).")] = None,
    split: Annotated[str | None, typer.Option("--split", help="train or validation (default: both).")] = None,
) -> None:
    """Write the records as JSONL."""
    if split not in (None, "train", "validation"):
        raise BadInput("--split", f"{split!r} is not a split; use train or validation")
    with closing(session.client.download(calls.dataset_records(dataset_id, split))) as chunks:
        if output is None:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        save(chunks, output, "--output")
    session.note(f"written to {output}")


def _readable(file: Path) -> Path:
    try:
        with file.open("rb"):
            return file
    except OSError as error:
        raise BadInput("FILE", f"{file} cannot be read: {error.strerror}") from error


def _ended(session: Session, build_id: str) -> DatasetBuild:
    while not (build := session.client.call(calls.dataset_build(build_id))).ended:
        time.sleep(_ASK_SECONDS)
    return build


def _failed(build: DatasetBuild) -> FleetError:
    """The build's first fault as the error, the others as lines below it."""
    first, *others = map(str, build.faults) if build.faults else ["the build failed"]
    hint = "name it with --column, for example --column prompt=question" if ": no column " in first else ""
    return FleetError(first, "\n".join([*others, *([hint] if hint else [])]))


def _dropped(found: DroppedRecords) -> Group:
    counts = {**found.filters, **{f"{name} (generated)": count for name, count in found.generated.items()}}
    summary = [(name, one.dropped, one.changed, one.uncertain) for name, one in counts.items()]
    samples = [
        (name, sample.reason, sample.prompt[:60], sample.completion[:60])
        for name, one in counts.items()
        for sample in one.samples
    ]
    parts = [table(("FILTER", "DROPPED", "MASKED", "UNCERTAIN"), summary)]
    if samples:
        parts += [table(("FILTER", "REASON", "PROMPT", "COMPLETION"), samples)]
    return Group(*(item for part in parts for item in (part, Text(""))))
