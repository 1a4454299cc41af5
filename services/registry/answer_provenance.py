"""An answer followed back: the adapters that gave it, their chains down to the training data, and what is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import Field

from services.registry.family import Adapter
from services.registry.provenance import Provenance
from services.registry.store.answers import Answer, AnsweredWith
from services.registry.timeline.view import ServingAt, VersionAtView
from services.registry.view import BaseModelView, View


class AnsweringAdapter(View):
    """An adapter that took part in an answer, and where what it knows comes from."""

    adapter_id: str
    artifact_sha256: str = Field(description="Digest of the artifact that answered")
    weight: float = Field(description="Factor in a weighted set; 1 alone")
    chain: list[Provenance] = Field(
        description="Of this version, then of the version that its training continued, and so on to the first"
    )
    unknown: list[str] = Field(description="What cannot be followed back, and why")
    when_answered: ServingAt | VersionAtView | None = Field(
        default=None,
        description="The version as it stood at the time of the answer: its decision, by whom, on what evidence; where "
        "it answered for its family, since when, and by whose activation. A replica may answer with a version for a "
        "moment after it was taken out of service",
    )

    @classmethod
    def of(
        cls,
        given: AnsweredWith,
        ancestry: Sequence[Adapter],
        chain: Sequence[Provenance],
        missing: str,
        when_answered: ServingAt | VersionAtView | None = None,
    ) -> Self:
        """`chain` has a link for each of `ancestry`; `missing` is what the last one continues and is not among them."""
        unknown = [_unknown_of(adapter) for adapter in ancestry if adapter.submission.training is None]
        if missing:
            unknown.append(
                f"{ancestry[-1].adapter_id} continues {missing}, which is not followed: this registry has no such "
                "version, or the chain is too long"
            )
        return cls(
            adapter_id=given.adapter_id,
            artifact_sha256=given.artifact_sha256,
            weight=given.weight,
            chain=list(chain),
            unknown=unknown,
            when_answered=when_answered,
        )


class AnswerProvenance(View):
    """Who gave an answer. `adapters` has all of a weighted set, and is empty where the base model answered alone."""

    generation_id: str
    answered_at: datetime
    requested_model: str
    routed: str = Field(description="Why `auto` chose who answered; empty where the request named a model")
    fallback: str = Field(description="Why another model answered than the requested one; empty where none did")
    base_model: BaseModelView = Field(description="`revision` is empty for answers of releases that did not name it")
    adapters: list[AnsweringAdapter]
    unknown: list[str] = Field(description="What cannot be followed back for any answer of this base model")

    @classmethod
    def of(cls, answer: Answer, adapters: list[AnsweringAdapter]) -> Self:
        return cls(
            generation_id=answer.generation_id,
            answered_at=answer.answered_at,
            requested_model=answer.requested_model,
            routed=answer.routed,
            fallback=answer.fallback,
            base_model=BaseModelView(name=answer.base_model, revision=answer.base_model_revision),
            adapters=adapters,
            unknown=[f"base model {answer.base_model} was trained by its publisher: with what data is unknown here"],
        )


def _unknown_of(adapter: Adapter) -> str:
    origin = adapter.submission.origin
    source = f"imported from {origin.source}" if origin and origin.source != "upload" else "uploaded"
    return (
        f"{adapter.adapter_id} was {source} by {adapter.submission.by}, not trained by this fleet: with what data and "
        "configuration it was trained is unknown"
    )
