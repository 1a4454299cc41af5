"""`lorafleet adapters`: what the registry holds, and the decisions of a human."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleet_cli.adapter_files import EXPECTED, files_of
from fleet_cli.client import calls
from fleet_cli.client.errors import BadInput
from fleet_cli.client.responses import Withdrawal
from fleet_cli.commands import convert
from fleet_cli.commands.golden import expect_golden
from fleet_cli.commands.options import DomainOption, OptionalDomain, ReasonOption
from fleet_cli.files import read_text
from fleet_cli.group import CommandGroup
from fleet_cli.provenance import lines as provenance_lines
from fleet_cli.session import Session, facts, table
from fleet_events.v1 import Bump, Method

adapters = CommandGroup("List, show, approve, activate, register, import and convert adapters.")
convert.add(adapters)

AdapterId = Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")]


class Status(StrEnum):
    """States of a version."""

    PENDING_REVIEW = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"


@adapters.command("list")
def list_(
    session: Session,
    domain: OptionalDomain = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only this status.")] = None,
    base_model: Annotated[str | None, typer.Option("--base-model", help="Only this base model.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only versions that serve.")] = False,
) -> None:
    """List versions."""
    found = session.client.call(
        calls.adapters(domain, status.value if status else None, base_model, True if active else None)
    )
    rows = [
        (one.adapter_id, one.domain, one.version, one.status, "active" if one.active else "", _score(one.metrics))
        for one in found
    ]
    session.answer(found, table(("ADAPTER", "DOMAIN", "VERSION", "STATUS", "ACTIVE", "SCORE"), rows))


@adapters.command("show")
def show(session: Session, adapter_id: AdapterId) -> None:
    """Show everything known of a version."""
    found = session.client.call(calls.adapter(adapter_id))
    session.answer(found, facts(found.model_dump(mode="json")))


@adapters.command("provenance")
def provenance(session: Session, adapter_id: AdapterId) -> None:
    """Show the digest chain: data set → configuration → base model → checkpoint → artifact → evaluation → approval."""
    found = session.client.call(calls.provenance(adapter_id))
    session.answer(found, "\n".join(provenance_lines(found)))


@adapters.command("manifest")
def manifest(session: Session, adapter_id: AdapterId) -> None:
    """Show a version's manifest: what it is for, its numbers, and the forms it can be had in."""
    found = session.client.call(calls.manifest(adapter_id))
    session.answer(found, facts(found.model_dump(mode="json")))


def _decide(session: Session, verb: str, adapter_id: str, reason: str, **further: object) -> None:
    found = session.client.call(calls.decide(adapter_id, verb, reason, **further))
    state = "active" if found.active else "not active"
    session.answer(found, f"{found.adapter_id}: {found.status}, {state}{_unreached(found.withdrawal)}")


def _unreached(withdrawal: Withdrawal | None) -> str:
    """Where a version that was taken out of service may still answer."""
    if withdrawal is None or (withdrawal.published and not withdrawal.pending):
        return ""
    if not withdrawal.published:
        return "; the bus has not stored the event yet, so every replica may still answer with it"
    return f"; not yet applied by {', '.join(withdrawal.pending)}"


@adapters.command("approve")
def approve(
    session: Session,
    adapter_id: AdapterId,
    reason: ReasonOption = "",
    without_evaluation: Annotated[
        bool,
        typer.Option(
            "--without-evaluation",
            help="Approve a version that has no score: takes --reason, and a policy of the domain that permits it.",
        ),
    ] = False,
) -> None:
    """Approve a version that waits for review."""
    if without_evaluation and not reason.strip():
        raise BadInput("--reason", "is missing; an approval without an evaluation says why")
    further = {"without_evaluation": True} if without_evaluation else {}
    _decide(session, "approve", adapter_id, reason, **further)


@adapters.command("reject")
def reject(session: Session, adapter_id: AdapterId, reason: ReasonOption = "") -> None:
    """Reject a version."""
    _decide(session, "reject", adapter_id, reason)


@adapters.command("activate")
def activate(session: Session, adapter_id: AdapterId, reason: ReasonOption = "") -> None:
    """Make an approved version its family's answer."""
    _decide(session, "activate", adapter_id, reason)


@adapters.command("deactivate")
def deactivate(session: Session, adapter_id: AdapterId, reason: ReasonOption = "") -> None:
    """Take a version out of service."""
    _decide(session, "deactivate", adapter_id, reason)


@adapters.command("register")
def register(
    session: Session,
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="PEFT folder of an adapter.")],
    domain: DomainOption,
    method: Annotated[
        Method | None, typer.Option("--method", help="How it was trained (default: as the folder says).")
    ] = None,
    base_model: Annotated[
        str, typer.Option("--base-model", help="Base model's name in the fleet (default: as the folder says).")
    ] = "",
    version: Annotated[str, typer.Option("--version", help="Exact X.Y.Z (default: computed).")] = "",
    bump: Annotated[Bump | None, typer.Option("--bump", help="Part of the version to raise.")] = None,
    golden_dataset: Annotated[str, typer.Option("--golden-dataset", help="Golden data set to judge with.")] = "",
    description: Annotated[str, typer.Option("--description", help="What it is for; queries are matched to it.")] = "",
    reason: ReasonOption = "",
) -> None:
    """Upload a PEFT folder as a new version."""
    if not folder.is_dir():
        raise BadInput("FOLDER", f"{folder} is no folder; give one with adapter_config.json and its safetensors")
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    for file in files:
        if not file.is_file():
            raise BadInput("FOLDER", f"{folder} holds no {file.name}; pickled weights (.bin) are never read")
    if golden_dataset:
        expect_golden(session, golden_dataset, domain)
    fields = {
        "domain": domain,
        "method": method.value if method else "",
        "base_model": base_model,
        "version": version,
        "bump": bump.value if bump else "",
        "golden_dataset_id": golden_dataset,
        "description": description,
        "reason": reason,
    }
    found = session.client.call(calls.register(files, {name: value for name, value in fields.items() if value}))
    session.answer(found, f"registered {found.adapter_id}: {found.status}")


@adapters.command("import")
def import_(
    session: Session,
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="PEFT or MLX folder, GGUF or Arrow file, archive, s3://BUCKET/PREFIX or OWNER/NAME[@REVISION][:PATH].",
        ),
    ],
    domain: DomainOption,
    base_model: Annotated[str, typer.Option("--base-model", help="It is for (default: the registry's first).")] = "",
    method: Annotated[Method | None, typer.Option("--method", help="How it was trained (default: seen).")] = None,
    version: Annotated[str, typer.Option("--version", help="Exact X.Y.Z (default: computed).")] = "",
    bump: Annotated[Bump | None, typer.Option("--bump", help="Part of the version to raise.")] = None,
    golden_dataset: Annotated[str, typer.Option("--golden-dataset", help="Golden data set to judge with.")] = "",
    description: Annotated[str, typer.Option("--description", help="What it is for; queries are matched to it.")] = "",
    hub_token_file: Annotated[
        Path | None, typer.Option("--hub-token-file", help="Token for a private repository of the hub.")
    ] = None,
    reason: ReasonOption = "",
) -> None:
    """Register an adapter from files in another tool's form, an archive, the fleet's bucket or a model hub."""
    if golden_dataset:
        expect_golden(session, golden_dataset, domain)
    given = {
        "domain": domain,
        "base_model": base_model,
        "method": method.value if method else "",
        "version": version,
        "bump": bump.value if bump else "",
        "golden_dataset_id": golden_dataset,
        "description": description,
        "reason": reason,
    }
    fields = {name: value for name, value in given.items() if value}
    if "://" not in source and Path(source).exists():
        call = calls.import_files(files_of(Path(source)), fields)
    else:
        if "/" not in source:
            raise BadInput("SOURCE", f"there is no {source} here, expected {EXPECTED}")
        if hub_token_file is not None:
            fields["hub_token"] = read_text(str(hub_token_file), "--hub-token-file").strip()
        call = calls.import_from(source, fields)
    found = session.client.call(call)
    session.answer(found, f"imported {found.adapter_id}: {found.status}")
    if found.status == "pending_review":
        session.note(f"it serves once it is evaluated and approved: lorafleet adapters approve {found.adapter_id}")
    if not description:
        session.note("without --description, --model auto finds it by what the version before had, if there was one")


def _score(metrics: object) -> str:
    score = metrics.get("llm_judge_score") if isinstance(metrics, dict) else None
    return f"{score:.1f}" if isinstance(score, int | float) else ""
