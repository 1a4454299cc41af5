"""The evaluator's endpoints."""

from __future__ import annotations

from pydantic import TypeAdapter

from lorafleet.calls.paths import path_segment
from lorafleet.clients import Call, Query
from lorafleet.responses import (
    Agreement,
    Anything,
    Calibration,
    Evaluation,
    EvaluationDetail,
    ForgottenGolden,
    GarbageOfEvaluator,
    GoldenChanged,
    GoldenSet,
)

_ANYTHING = TypeAdapter(Anything)
_DETAIL = TypeAdapter(EvaluationDetail)
_EVALUATIONS = TypeAdapter(list[Evaluation])
_GOLDEN = TypeAdapter(GoldenSet)
_GOLDENS = TypeAdapter(list[GoldenSet])
_LINES = TypeAdapter(list[dict[str, object]])


def create_golden(dataset_id: str, domain: str, version: str, description: str) -> Call[GoldenSet]:
    """A new, empty golden data set."""
    body = {"dataset_id": dataset_id, "domain": domain, "version": version, "description": description}
    return Call("evaluator", "POST", "/v1/golden", _GOLDEN, body=body)


def goldens(domain: str | None = None) -> Call[list[GoldenSet]]:
    """Golden data sets."""
    return Call("evaluator", "GET", "/v1/golden", _GOLDENS, {"domain": domain}, inside="datasets")


def golden(reference: str) -> Call[GoldenSet]:
    """One golden data set by `id` (its newest version) or `id@version`."""
    dataset_id, _, version = reference.partition("@")
    return Call("evaluator", "GET", f"/v1/golden/{path_segment(dataset_id)}", _GOLDEN, {"version": version})


def add_golden_samples(dataset_id: str, ndjson: bytes, *, replace: bool = False) -> Call[GoldenChanged]:
    """Add samples to a golden data set, or make them all it has."""
    query: Query = {"replace": "true" if replace else None}
    path = f"/v1/golden/{path_segment(dataset_id)}/samples"
    return Call("evaluator", "POST", path, TypeAdapter(GoldenChanged), query, ndjson=ndjson)


def export_golden(reference: str) -> Call[list[dict[str, object]]]:
    """Every sample of a golden data set, `id` or `id@version`."""
    dataset_id, _, version = reference.partition("@")
    return Call(
        "evaluator", "GET", f"/v1/golden/{path_segment(dataset_id)}/export", _LINES, {"version": version}, lines=True
    )


def evaluations(adapter_id: str | None = None) -> Call[list[Evaluation]]:
    """Evaluations, newest first."""
    return Call("evaluator", "GET", "/v1/evaluations", _EVALUATIONS, {"adapter_id": adapter_id}, inside="evaluations")


def evaluation(evaluation_id: str) -> Call[EvaluationDetail]:
    """One evaluation with its samples."""
    return Call("evaluator", "GET", f"/v1/evaluations/{path_segment(evaluation_id)}", _DETAIL)


def request_evaluation(adapter_id: str, golden_dataset_id: str) -> Call[Anything]:
    """Judge a version again."""
    body = {"adapter_id": adapter_id, "golden_dataset_id": golden_dataset_id}
    return Call("evaluator", "POST", "/v1/evaluations", _ANYTHING, body=body)


def judge_exchanges(evaluation_id: str, *, sample_id: str = "", content: bool = False) -> Call[Anything]:
    """Requests to the judge of an evaluation and its raw answers."""
    path = f"/v1/evaluations/{path_segment(evaluation_id)}/exchanges"
    return Call("evaluator", "GET", path, _ANYTHING, {"sample_id": sample_id, "content": content or None})


def replay_evaluation(evaluation_id: str, *, sample_id: str = "", again: bool = False) -> Call[Anything]:
    """Verdicts made once more, as server-sent events: from the recorded answers, or by the judge (`again`)."""
    path = f"/v1/evaluations/{path_segment(evaluation_id)}/replay"
    return Call("evaluator", "POST", path, _ANYTHING, body={"sample_id": sample_id, "again": again})


def label_answer(evaluation_id: str, sample_id: str, score: float, note: str) -> Call[Anything]:
    """Score a judged answer as a person."""
    path = f"/v1/evaluations/{path_segment(evaluation_id)}/samples/{path_segment(sample_id)}/label"
    return Call("evaluator", "PUT", path, _ANYTHING, body={"score": score, "note": note})


def judge_agreement(judge: str, domain: str) -> Call[Agreement]:
    """How far a judge agrees with people."""
    query: Query = {"judge": judge, "domain": domain}
    return Call("evaluator", "GET", "/v1/judges/agreement", TypeAdapter(Agreement), query)


def calibrate_judge(judge: str, domain: str) -> Call[Calibration]:
    """Fit a judge's scores to people's."""
    body: dict[str, object] = {"judge": judge, "domain": domain}
    return Call("evaluator", "POST", "/v1/judges/calibration", TypeAdapter(Calibration), body=body)


def forget_golden(erasure_id: str, subject: str, domain: str) -> Call[ForgottenGolden]:
    """Have a person erased from golden data sets and from what was judged with them."""
    body = {"erasure_id": erasure_id, "subject": subject, "domain": domain}
    return Call("evaluator", "POST", "/v1/golden-erasures", TypeAdapter(ForgottenGolden), body=body)


def collect_reports(*, apply: bool, at_most: int = 0) -> Call[GarbageOfEvaluator]:
    """What retention rules let go and nothing refers to, of the evaluator; deleted where applied."""
    body = {"apply": apply, "at_most": at_most}
    return Call("evaluator", "POST", "/v1/gc", TypeAdapter(GarbageOfEvaluator), body=body)
