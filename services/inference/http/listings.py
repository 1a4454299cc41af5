"""Entries of /v1/models, and the states of adapters that operators see."""

from dataclasses import asdict

from fleet_events.v1 import Adapter
from services.inference.slots.states import Draining, Failed, Loaded, State, Yielding


def model_entry(
    name: str, created: int, *, root: str, parent: str | None = None, **details: object
) -> dict[str, object]:
    """One entry of /v1/models."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "lorafleet",
        "root": root,
        "parent": parent,
        **details,
    }


def adapter_details(adapter: Adapter, *, active: bool) -> dict[str, object]:
    """What /v1/models adds to an adapter."""
    return {
        "family": adapter.family,
        "version": adapter.version,
        "domain": adapter.domain,
        "active": active,
        "artifact_sha256": adapter.artifact.blob.sha256,
        "base_model_revision": adapter.base_model.revision,
        "description": adapter.description,
    }


def state(state: State) -> dict[str, object]:
    """An adapter's state for operators."""
    shown: dict[str, object] = {"state": type(state).__name__.lower()}
    match state:
        case Loaded(proof=proof, users=users) | Yielding(proof=proof, users=users):
            shown |= {"users": users, "proof": asdict(proof)}
        case Draining(reason=reason, users=users):
            shown |= {"users": users, "reason": reason}
        case Failed(failure=failure):
            shown |= {"code": failure.code, "reason": failure.reason, "transient": failure.transient}
        case _:
            pass
    return shown
