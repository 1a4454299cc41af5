"""GenerationCompleted, of an answer that was given."""

from fleet_events.v1 import GenerationCompleted, WeightedAdapter
from services.inference.answer_task import AnswerTask


def completed_event(task: AnswerTask, *, tokens: int, seconds: float, reason: str, replica: str) -> GenerationCompleted:
    """The event; `tokens` and `seconds` are those of the answer, `reason` why it ended."""
    chosen = task.chosen
    return GenerationCompleted(
        generation_id=task.generation_id,
        requested_model=chosen.requested,
        adapter_id=chosen.adapter_id,
        domain=chosen.domain,
        artifact_sha256=chosen.adapter.artifact.blob.sha256 if chosen.adapter else "",
        base_model=chosen.base.name,
        base_model_revision=chosen.base.revision,
        prompt_tokens=len(task.prompt_ids),
        completion_tokens=tokens,
        latency_ms=seconds * 1000,
        finish_reason=reason,
        routed=chosen.routed.reason if chosen.routed else "",
        caller=task.caller.subject,
        replica=replica,
        fallback=chosen.fallback.reason if chosen.fallback else "",
        rollout=chosen.part,
        mix=tuple(
            WeightedAdapter(adapter_id=one.adapter_id, artifact_sha256=one.artifact.blob.sha256, weight=weight)
            for one, weight in chosen.mix
        ),
    )
