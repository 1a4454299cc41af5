"""Recorded answers and feedback on them, as inference publishes both."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fleet_events import Event, v1
from fleet_kit.cloudevents import seal
from tests.integration.trainer.conftest import Bench

ALL, MASK = v1.RecordAnswers.ALL, v1.PersonalDataAction.MASK
QUESTION = (v1.Turn(role="system", content="Be brief."), v1.Turn(role="user", content="Gate?"))


def recorded(bench: Bench, name: str, answer: str, **changes: Any) -> v1.GenerationRecorded:
    fields: dict[str, Any] = {
        "generation_id": f"{bench.domain}-{name}",
        "domain": bench.domain,
        "adapter_id": f"{bench.domain}-lora-v1.0.0",
        "artifact_sha256": "1" * 64,
        "base_model": v1.BaseModel(name="tiny-llama", revision="0" * 64),
        "sampling": v1.Sampling(temperature=0.7, seed=3),
        "messages": QUESTION,
        "answer": answer,
        "finish_reason": "stop",
        "consent": v1.Consent(record_answers=ALL, personal_data=MASK, revision=4),
    }
    return v1.GenerationRecorded(**fields | changes)


def opinion(bench: Bench, name: str, **fields: Any) -> v1.FeedbackRecorded:
    if "preferred_over" in fields:
        fields["preferred_over"] = f"{bench.domain}-{fields['preferred_over']}"
    given = {"generation_id": f"{bench.domain}-{name}", "domain": bench.domain, "by": "ann", **fields}
    return v1.FeedbackRecorded(**given)


async def publish_as(bench: Bench, event: Event, at: datetime | None = None, service: str = "inference") -> None:
    """As inference publishes it, or another; a given time is the event's own."""
    out = seal(event, service=service, entity="test", trace={})
    headers = dict(out.headers) | ({"ce-time": at.isoformat()} if at else {})
    await bench.upstream.jetstream.publish(out.subject, out.body, headers=headers)
