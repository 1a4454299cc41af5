"""Every page renders with the least that services answer, with all of it, and with markup in every text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.requests import Request

from fleet_kit.caller import Caller
from fleet_kit.errors import Problem
from lorafleet import responses
from services.console.feed import Shown
from services.console.figures import Figure
from services.console.pages.compare import Duel, Duels
from services.console.pages.health import _readiness
from services.console.pages.review import SideBySide
from services.console.rendering import page
from services.console.trace import steps_of

pytestmark = pytest.mark.unit
EVIL = "<script>alert(1)</script>\"'\u202e" + "x" * 10_000
SCOPES = frozenset({"adapters:read", "adapters:write", "adapters:approve", "train", "generate", "admin"})


@dataclass(frozen=True)
class Anybody:
    """What templates take of a viewer."""

    caller: Caller
    form_token: str = "f" * 64

    def can(self, scope: str) -> bool:
        return scope in self.caller.scopes


def rendered(template: str, **context: Any) -> str:
    request = Request({"type": "http", "method": "GET", "path": "/console/x", "query_string": b"", "headers": []})
    viewer: Any = Anybody(Caller("ann", SCOPES, frozenset({"*"})))
    return bytes(page(request, template, viewer, **context).body).decode()


def sample(**further: object) -> responses.JudgedSample:
    return responses.JudgedSample.model_validate({"sample_id": "s"} | further)


ADAPTER = responses.Adapter(adapter_id="a", status="pending_review")
FULL_ADAPTER = responses.Adapter.model_validate({
    "adapter_id": "a", "family": EVIL, "domain": "shop", "status": "approved", "active": True, "description": EVIL,
    "registered_at": "2026-12-02T09:00:00Z", "registered_by": EVIL, "decision_reason": EVIL, "decided_by": EVIL,
    "decided_at": None, "evaluation": {"score": 0.0, "ci_low": None, "ci_high": None}, "training": {"job_id": EVIL},
    "usage": {"answers": 0, "completion_tokens": 0, "latency_ms": None}, "feedback": {"average": None, "count": 0},
    "metrics": {"llm_judge_score": None},
})  # fmt: skip
CHAIN = responses.Provenance(adapter_id="a", base_model={}, checkpoint={}, artifact={})
FULL_CHAIN = responses.Provenance(
    adapter_id="a", origin={"x": EVIL}, base_model={"revision": None}, checkpoint={"sha256": EVIL}, artifact={"f": [1]},
    loaded=[{"replica": EVIL}], answers={"count": None},
)  # fmt: skip
SHADOW = responses.Rollout(
    rollout_id="r", mode="shadow", candidate_id="a", incumbent_id=EVIL, state="running",
    evidence=[responses.Evidence(metric=EVIL)],
)  # fmt: skip
EVALUATIONS = [
    responses.Evaluation(evaluation_id="e"),
    responses.Evaluation.model_validate({"evaluation_id": "f", "state": "failed", "judge": EVIL, "regression": True}),
]
DETAIL = responses.EvaluationDetail(evaluation_id="e")
FULL_DETAIL = responses.EvaluationDetail.model_validate({
    "evaluation_id": "e", "score": 70.5, "ci_low": 60, "ci_high": 80, "criteria": {EVIL: 3.0, "unjudged": None},
    "comparison": {"compared_with": EVIL, "difference": {"value": -1}}, "regression": True, "judge": EVIL,
})  # fmt: skip
FULL_SAMPLE = sample(
    prompt=EVIL, expected_output=EVIL, answer=EVIL, overall=None, why=EVIL, vetoes=[EVIL], difficulty=EVIL,
    verdicts={EVIL: {"score": None, "reason": EVIL}},
)  # fmt: skip
LETTER = responses.DeadLetter(id="approved.1-2", consumer="c")
FULL_LETTER = responses.DeadLetter(
    id=EVIL, consumer=EVIL, type=EVIL, subject=EVIL, domain=EVIL, time="2026-12-02T09:00:00Z", reason=EVIL, body=EVIL,
    truncated=True, headers={EVIL: EVIL, "traceparent": f"00-{EVIL}-b-01"},
)  # fmt: skip
SHOWN = Shown(
    number=0, id=EVIL, stream="S", type="Rejected", at=datetime.now(UTC), source=EVIL, entity=EVIL, domain=EVIL,
    trace="ab" * 16, body=EVIL,
)  # fmt: skip
COMPARED = [responses.ComparedVersion(adapter_id=one) for one in ("a", "b", EVIL)]
REVIEW: dict[str, Any] = {"why": "", "policy": {}, "active": None, "samples": [], "left_out": 0, "running": None}
FAMILIES = [
    responses.FamilyLine(family="f"),
    responses.FamilyLine(family=EVIL, active_id=EVIL, score=1.0, domain=EVIL, ratings=1),
]
JOB = responses.Job(job_id="j", state="failed")
FULL_JOB = responses.Job.model_validate({
    "job_id": EVIL, "state": EVIL, "error": EVIL, "configuration": {EVIL: [EVIL], "none": None}, "dataset": EVIL,
    "history": [{"number": 1}, {"number": 2, "worker": EVIL, "reason": EVIL}],
})  # fmt: skip
VERSION: dict[str, Any] = {"trail": [], "siblings": [], "rollout": None, "manifest": None}
FULL_MANIFEST = responses.Anything.model_validate({
    "artifact_sha256": EVIL, "file_size": 5, "variants": [{"kind": EVIL, "fit": False, "blob": {"sha256": EVIL}}, {}],
})  # fmt: skip
DROPPED = responses.DroppedRecords(filters={EVIL: responses.FilterCount(
    dropped=1, reasons={EVIL: 1}, samples=[responses.DroppedRecord(reason=EVIL, prompt=EVIL, completion=EVIL)]
)})  # fmt: skip
DATASET: dict[str, Any] = {"split": "", "offset": 20, "size": 20, "more": True, "readable": True}
MOMENT: dict[str, Any] = {"family": "f", "answer": "a", "at": "2026-12-02T09:00:00+00:00"}
PAGES: list[tuple[str, dict[str, Any]]] = [
    ("version.html", VERSION | {"adapter": ADAPTER, "chain": CHAIN, "evaluations": None}),
    ("version.html", {
        "adapter": FULL_ADAPTER, "chain": FULL_CHAIN, "evaluations": EVALUATIONS, "rollout": SHADOW,
        "trail": [responses.AuditLine(), responses.AuditLine(actor=EVIL, reason=EVIL)], "siblings": [ADAPTER],
        "manifest": FULL_MANIFEST,
    }),
    ("version.html", VERSION | {
        "adapter": ADAPTER, "evaluations": [], "manifest": responses.Anything(),
        "chain": responses.Provenance(adapter_id="a", base_model={}, checkpoint={}, artifact={}, dataset={"dataset_id": EVIL}),
    }),
    ("dataset.html", DATASET | {
        "dataset": responses.Dataset.model_validate({"dataset_id": EVIL, "name": EVIL}), "dropped": DROPPED,
        "card": responses.Anything.model_validate({"x": EVIL}), "records": [{"prompt": EVIL, "completions": [EVIL]}],
    }),
    ("dataset.html", DATASET | {
        "dataset": responses.Dataset(dataset_id="d"), "dropped": None, "card": None, "records": [], "readable": False,
    }),
    ("review_queue.html", {"waiting": [ADAPTER, FULL_ADAPTER], "more": 3, "all_read": False}),
    ("review.html", REVIEW | {"adapter": ADAPTER, "evaluation": None}),
    ("review.html", REVIEW | {"adapter": ADAPTER, "evaluation": DETAIL, "running": EVALUATIONS[0]}),
    ("review.html", {
        "adapter": FULL_ADAPTER, "policy": {"approve_at": 85, "reject_below": 50.0}, "evaluation": FULL_DETAIL,
        "active": DETAIL, "samples": [SideBySide(sample(), sample()), SideBySide(FULL_SAMPLE, sample(overall=1.0))],
        "why": EVIL, "left_out": 3, "running": EVALUATIONS[1],
    }),
    ("compare.html", {"named": [EVIL], "found": None}),
    ("compare.html", {"named": ["a", "b", "c"], "found": responses.VersionComparison(
        versions=COMPARED, differing={EVIL: {"a": EVIL}}, preferences={EVIL: {"won": 1}}, significant=[EVIL],
        pairs=[responses.ComparedPair(
            first="a", second=EVIL, why_not=EVIL, measures=[responses.Tested(measure=EVIL, difference=0.0)],
        )],
    ), "samples": 1, "size": 1, "duels": [
        Duels("a", EVIL, [Duel(sample(overall=1.0), sample(overall=2.0)), Duel(FULL_SAMPLE, FULL_SAMPLE)]),
        Duels("a", "b", [Duel(FULL_SAMPLE, FULL_SAMPLE)]),
    ]}),
    ("dead_letters.html", {
        "letters": [("registry", LETTER), ("router", FULL_LETTER)], "more": ["router"], "earlier": {"router": 2},
        "unavailable": ["trainer"], "replayed": EVIL,
    }),
    ("dead_letters.html", {"letters": [], "more": [], "earlier": {}, "unavailable": [], "replayed": ""}),
    ("dead_letter.html", {"service": "registry", "letter": LETTER, "fault": ""}),
    ("dead_letter.html", {"service": "registry", "letter": FULL_LETTER, "fault": EVIL}),
    ("base_answer.html", {"answer": responses.ChatCompletion(id="a", choices=[]), "model": EVIL}),
    ("trace.html", {
        "trace": "ab" * 16, "steps": steps_of([SHOWN, SHOWN]), "hidden": 1, "whole": False, "hours": 24, "most": 500,
        "services": [EVIL],
    }),
    ("fleet.html", {
        "found": responses.FamilyPage(families=FAMILIES, total=2), "statistics": responses.Statistics(), "offset": 0,
        "sort": "family", "size": 50,
    }),
    ("jobs.html", {"jobs": [JOB, FULL_JOB], "state": ""}),
    ("job.html", {"job": JOB, "metrics": [], "card": None, "moves": ["retry"]}),
    ("job.html", {"job": FULL_JOB, "metrics": [], "card": responses.Anything.model_validate({"x": EVIL}), "moves": []}),
    ("train.html", {"methods": ["lora"], "sent": {}, "fault": None}),
    ("train.html", {"methods": [], "sent": {"domain": EVIL}, "fault": Problem(422, "t", EVIL, field="rank")}),
    ("moment.html", MOMENT | {"found": None, "chain": None}),
    ("moment.html", MOMENT | {"found": responses.FamilyAt(family="f"),
                              "chain": responses.AnswerProvenance(generation_id="g", base_model={})}),
    ("moment.html", MOMENT | {
        "found": responses.FamilyAt(
            family=EVIL, serving=responses.ServingAt(adapter_id=EVIL, decision=responses.DecisionAt(action="x", by=EVIL)),
            versions=[responses.VersionAt(adapter_id=EVIL)], policy={EVIL: None},
        ),
        "chain": responses.AnswerProvenance(
            generation_id=EVIL, base_model={}, routed=EVIL, unknown=[EVIL],
            adapters=[responses.AnsweringAdapter(adapter_id=EVIL, chain=[CHAIN, FULL_CHAIN])],
        ),
    }),
    ("health.html", {
        "parts": {"a": {}, "b": {"ready": True}, "c": {"checks": {EVIL: EVIL}, "detail": {"x": EVIL}}},
        "figures": {"a": None, "b": [], "c": [Figure(EVIL, EVIL, EVIL)]},
    }),
    ("playground.html", {"names": [EVIL], "chosen": [], "most": 6}),
    ("playground.html", {"names": [], "chosen": [EVIL], "most": 6}),
]  # fmt: skip


@pytest.mark.parametrize(("template", "context"), PAGES, ids=lambda one: one if isinstance(one, str) else "")
def test_a_page_bears_what_services_leave_out_and_shows_markup_as_text(template: str, context: dict[str, Any]) -> None:
    text = rendered(template, **context)
    assert "<script>alert" not in text
    assert ">None<" not in text
    assert "'None'" not in text


@pytest.mark.parametrize("answer", [[], "ok", None, {"checks": []}])
def test_an_answer_that_is_no_readiness_is_not_taken_for_one(answer: object) -> None:
    with pytest.raises(ValueError, match="readiness"):
        _readiness(answer)
