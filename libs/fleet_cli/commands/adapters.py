"""`lorafleet adapters`: the versions that the registry holds, and the decisions of a human."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleet_cli.adapter_files import EXPECTED, files_of
from fleet_cli.commands import audit, compare, convert, keeping, metrics, migrate, moment, rollouts, updates
from fleet_cli.commands.golden import expect_golden
from fleet_cli.commands.options import DomainOption, OptionalDomain, ReasonOption
from fleet_cli.files import read_text
from fleet_cli.group import CommandGroup
from fleet_cli.provenance import lines as provenance_lines
from fleet_cli.session import Session, facts, table
from fleet_events.v1 import Bump, Method
from lorafleet import calls
from lorafleet.errors import BadInput
from lorafleet.responses import Withdrawal

adapters = CommandGroup(
    "List, show, compare, approve, reject, activate, roll out, deactivate, hold, register, import, convert adapters; "
    "look at the past; show and set their metrics; list updates of what runs; migrate them to other base models; show "
    "their audit trail and refusals."
)
for part in (convert, compare, rollouts, metrics, updates, migrate, audit, moment, keeping):
    part.add(adapters)

AdapterId = Annotated[str, typer.Argument(metavar="ADAPTER_ID", help="domain-method-vX.Y.Z")]
VersionOption = Annotated[str, typer.Option("--version", help="Version to register, X.Y.Z (default: computed).")]
BumpOption = Annotated[Bump | None, typer.Option("--bump", help="Version number to raise (default: by what changed).")]
GoldenOption = Annotated[
    str, typer.Option("--golden-dataset", help="Golden data set to judge with (default: newest of the domain).")
]
DescriptionOption = Annotated[
    str,
    typer.Option(
        "--description", help="Purpose of the adapter; queries are matched to it (default: its predecessor's)."
    ),
]


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
    active: Annotated[bool, typer.Option("--active", help="Only active versions.")] = False,
) -> None:
    """List versions, newest first."""
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
    """Show everything known about a version."""
    found = session.client.call(calls.adapter(adapter_id))
    session.answer(found, facts(found.model_dump(mode="json")))


@adapters.command("provenance")
def provenance(session: Session, adapter_id: AdapterId) -> None:
    """Show the digest chain: data set → configuration → base model → checkpoint → artifact → evaluation → approval."""
    found = session.client.call(calls.provenance(adapter_id))
    session.answer(found, "\n".join(provenance_lines(found)))


@adapters.command("manifest")
def manifest(session: Session, adapter_id: AdapterId) -> None:
    """Show a version's manifest: its purpose, its numbers, and the formats it is available in."""
    found = session.client.call(calls.manifest(adapter_id))
    session.answer(found, facts(found.model_dump(mode="json")))


def _decide(session: Session, verb: str, adapter_id: str, reason: str, **further: object) -> None:
    found = session.client.call(calls.decide(adapter_id, verb, reason, **further))
    state = "active" if found.active else "not active"
    session.answer(found, f"{found.adapter_id}: {found.status}, {state}{_unreached(found.withdrawal)}")


def _unreached(withdrawal: Withdrawal | None) -> str:
    """The replicas on which a deactivated version may still answer."""
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
        raise BadInput("--reason", "is missing; an approval without an evaluation requires a reason")
    further = {"without_evaluation": True} if without_evaluation else {}
    _decide(session, "approve", adapter_id, reason, **further)


@adapters.command("reject")
def reject(session: Session, adapter_id: AdapterId, reason: ReasonOption = "") -> None:
    """Reject a version."""
    _decide(session, "reject", adapter_id, reason)


@adapters.command("activate")
def activate(session: Session, adapter_id: AdapterId, reason: ReasonOption = "") -> None:
    """Activate an approved version for its family."""
    _decide(session, "activate", adapter_id, reason)


@adapters.command("deactivate")
def deactivate(session: Session, adapter_id: AdapterId, reason: ReasonOption = "") -> None:
    """Deactivate a version: it takes no further requests."""
    _decide(session, "deactivate", adapter_id, reason)


@adapters.command("register")
def register(
    session: Session,
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="PEFT folder of an adapter.")],
    domain: DomainOption,
    method: Annotated[
        Method | None, typer.Option("--method", help="Training method (default: that of the folder's configuration).")
    ] = None,
    base_model: Annotated[
        str,
        typer.Option(
            "--base-model", help="Base model's name in the fleet (default: that of the folder's configuration)."
        ),
    ] = "",
    version: VersionOption = "",
    bump: BumpOption = None,
    golden_dataset: GoldenOption = "",
    description: DescriptionOption = "",
    reason: ReasonOption = "",
) -> None:
    """Upload a PEFT folder as a new version."""
    if not folder.is_dir():
        raise BadInput(
            "FOLDER", f"{folder} is not a directory; pass a PEFT folder with adapter_config.json and its safetensors"
        )
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    for file in files:
        if not file.is_file():
            raise BadInput("FOLDER", f"{folder} contains no {file.name}; pickled weights (.bin) are never read")
    fields = _fields(
        session,
        domain=domain,
        golden_dataset_id=golden_dataset,
        method=method or "",
        base_model=base_model,
        version=version,
        bump=bump or "",
        description=description,
        reason=reason,
    )
    found = session.client.call(calls.register(files, fields))
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
    base_model: Annotated[
        str, typer.Option("--base-model", help="Base model's name in the fleet (default: the registry's first).")
    ] = "",
    method: Annotated[
        Method | None, typer.Option("--method", help="Training method (default: recognised from the files).")
    ] = None,
    version: VersionOption = "",
    bump: BumpOption = None,
    golden_dataset: GoldenOption = "",
    description: DescriptionOption = "",
    hub_token_file: Annotated[
        Path | None,
        typer.Option(
            "--hub-token-file", help="File with a token for a private repository of the hub (default: no token)."
        ),
    ] = None,
    reason: ReasonOption = "",
) -> None:
    """Import an adapter from files of another tool, an archive, the fleet's bucket or a model hub as a new version."""
    fields = _fields(
        session,
        domain=domain,
        golden_dataset_id=golden_dataset,
        method=method or "",
        base_model=base_model,
        version=version,
        bump=bump or "",
        description=description,
        reason=reason,
    )
    if "://" not in source and Path(source).exists():
        call = calls.import_files(files_of(Path(source)), fields)
    else:
        if "/" not in source:
            raise BadInput("SOURCE", f"{source} does not exist here; expected {EXPECTED}")
        if hub_token_file is not None:
            fields["hub_token"] = read_text(str(hub_token_file), "--hub-token-file").strip()
        call = calls.import_from(source, fields)
    found = session.client.call(call)
    session.answer(found, f"imported {found.adapter_id}: {found.status}")
    if found.status == "pending_review":
        session.note(f"it serves once it is evaluated and approved: lorafleet adapters approve {found.adapter_id}")
    if not description:
        session.note(
            "without --description, `auto` routes to it by the description of the previous version, if there is one"
        )


def _fields(session: Session, *, domain: str, golden_dataset_id: str, **others: str) -> dict[str, str]:
    """What a version is submitted with beside its files; raises `BadInput` for another domain's golden data set."""
    if golden_dataset_id:
        expect_golden(session, golden_dataset_id, domain)
    given = {"domain": domain, "golden_dataset_id": golden_dataset_id, **others}
    return {name: str(value) for name, value in given.items() if value}


def _score(metrics: object) -> str:
    score = metrics.get("llm_judge_score") if isinstance(metrics, dict) else None
    return f"{score:.1f}" if isinstance(score, int | float) else ""
