"""What waits for a person: the score against the lines, what fell, and the answers side by side, worst first."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fleet_kit.errors import Problem
from lorafleet import calls
from lorafleet.calls.paths import path_segment
from lorafleet.responses import Evaluation, EvaluationDetail, JudgedSample
from services.console.rendering import page, part
from services.console.together import together
from services.console.viewer import FORM, Submitted, ThisViewer, Viewer

router = APIRouter(include_in_schema=False)
MOST_SAMPLES = 200
MOST_WAITING = 1000
SHOWN_WAITING = 100
REVIEW_REQUESTED = "review_requested"


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A golden sample with the candidate's answer and the active version's, where that was judged on the same ones."""

    candidate: JudgedSample
    active: JudgedSample | None

    @property
    def difference(self) -> float | None:
        """Candidate minus active, in points."""
        if self.active is None or self.active.overall is None or self.candidate.overall is None:
            return None
        return self.candidate.overall - self.active.overall


def side_by_side(candidate: EvaluationDetail, active: EvaluationDetail | None) -> list[SideBySide]:
    """Every sample, those without a score first, then from the lowest score up."""
    others = {one.sample_id: one for one in active.results} if active else {}
    paired = [SideBySide(one, others.get(one.sample_id)) for one in candidate.results]
    return sorted(paired, key=lambda one: (one.candidate.overall is not None, one.candidate.overall or 0.0))


@router.get("/console/review")
async def queue(request: Request, viewer: ThisViewer) -> Response:
    """Versions that wait, those that waited longest first."""
    waiting = await viewer.call(calls.adapters(status="pending_review", limit=MOST_WAITING))
    oldest = sorted(waiting, key=_since)[:SHOWN_WAITING]
    more = len(waiting) - len(oldest)
    return page(request, "review_queue.html", viewer, waiting=oldest, more=more, all_read=len(waiting) < MOST_WAITING)


@router.get("/console/review/{adapter_id}")
async def show(request: Request, adapter_id: str, viewer: ThisViewer) -> Response:
    """One version with what a decision needs."""
    adapter = await viewer.call(calls.adapter(adapter_id))
    policy, evaluations = await together(
        viewer.call(calls.policy(adapter.domain)), viewer.call(calls.evaluations(adapter_id))
    )
    trail = await viewer.call(calls.audit(adapter_id))
    scored = next((one for one in evaluations if one.state == "scored"), None)
    detail = await viewer.maybe(calls.evaluation(scored.evaluation_id) if scored else None)
    active = await _of_active(viewer, adapter.family, scored) if scored else None
    samples = side_by_side(detail, active) if detail else []
    return page(
        request,
        "review.html",
        viewer,
        adapter=adapter,
        policy=policy,
        why=next((one.reason for one in reversed(trail) if one.action == REVIEW_REQUESTED), ""),
        evaluation=detail,
        active=active,
        samples=samples[:MOST_SAMPLES],
        left_out=max(0, len(samples) - MOST_SAMPLES),
        running=next((one for one in evaluations if one.state in ("waiting", "running")), None),
    )


@router.post("/console/review/{adapter_id}/evaluate", openapi_extra=FORM)
async def evaluate(adapter_id: str, viewer: ThisViewer, form: Submitted) -> Response:
    """Have it judged again, with the same golden data set unless the form names another."""
    await viewer.call(calls.request_evaluation(adapter_id, form.get("golden_dataset_id", "")))
    return RedirectResponse(f"/console/review/{path_segment(adapter_id)}", 303)


@router.post("/console/review/{adapter_id}/base/{evaluation_id}", openapi_extra=FORM)
async def base_answer(
    request: Request, adapter_id: str, evaluation_id: str, viewer: ThisViewer, form: Submitted
) -> Response:
    """What the base model answers to a sample's question, asked with the viewer's own token and as it was judged.

    On request alone: an evaluation does not need it, and it takes as long as any answer.
    """
    adapter, judged = await together(
        viewer.call(calls.adapter(adapter_id)), viewer.call(calls.evaluation(evaluation_id))
    )
    sample_id = form.get("sample_id", "")
    sample = next((one for one in judged.results if one.sample_id == sample_id), None)
    if sample is None:
        raise Problem(404, "Not found", f"evaluation {evaluation_id!r} has no sample {sample_id!r}", field="sample_id")
    asked = calls.chat(
        str(adapter.base_model.get("name", "")),
        sample.question or sample.prompt,
        system=sample.system,
        history=sample.history,
        max_tokens=judged.max_tokens or 512,
    )
    answer = await viewer.call(asked)
    model = answer.lorafleet.base_model if answer.lorafleet else answer.model
    return part(request, "base_answer.html", viewer, answer=answer, model=model)


async def _of_active(viewer: Viewer, family: str, scored: Evaluation) -> EvaluationDetail | None:
    """The active version's evaluation by the same judge on the same golden samples, if it has one."""
    serving = await viewer.call(calls.adapters(family=family, active=True))
    if not serving or serving[0].adapter_id == scored.adapter_id:
        return None
    judged = await viewer.call(calls.evaluations(serving[0].adapter_id))
    same = next((one for one in judged if one.state == "scored" and one.terms == scored.terms), None)
    return await viewer.maybe(calls.evaluation(same.evaluation_id) if same else None)


def _since(adapter: object) -> str:
    return str(getattr(adapter, "registered_at", ""))
