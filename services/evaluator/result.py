"""What an evaluation came to, as its event, its history and its report hold it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fleet_events import v1
from fleet_events.v1 import EvaluationScored, JudgedBy
from fleet_kit.blobs import BlobRef
from fleet_statistics.paired import Comparison
from services.evaluator.answer_metrics.summary import MetricSummary
from services.evaluator.domain import Evaluation, GoldenVersion, Summary
from services.evaluator.judging.agreement import Agreement
from services.evaluator.judging.judge import JudgeDescription
from services.evaluator.judging.pairwise import Preference


def scored_event(
    evaluation: Evaluation,
    summary: Summary,
    comparison: v1.Comparison | None,
    preferred: v1.Preference | None,
    report: BlobRef,
    *,
    agreed: Agreement | None,
    metrics: Mapping[str, MetricSummary],
    regression: bool,
    judge: JudgeDescription,
    scores: BlobRef | None = None,
    not_compared: str = "",
) -> EvaluationScored:
    """The event that carries the score."""
    return EvaluationScored(
        evaluation_id=evaluation.evaluation_id,
        adapter_id=evaluation.adapter_id,
        domain=evaluation.domain,
        artifact_sha256=evaluation.artifact_sha256,
        golden_dataset_id=evaluation.dataset_id or "",
        golden_sha256=evaluation.golden_sha256 or "",
        judge=evaluation.judge,
        score=summary.score.value,
        ci_low=summary.score.low,
        ci_high=summary.score.high,
        confidence=summary.confidence,
        pass_rate=summary.pass_rate.value,
        pass_threshold=evaluation.pass_threshold,
        samples=summary.samples,
        passed=summary.passed,
        criteria=dict(summary.criteria),
        report=report,
        scores=scores,
        max_tokens=evaluation.max_tokens,
        golden_version=evaluation.version or "",
        not_compared=not_compared,
        regression=regression,
        comparison=comparison,
        preference=preferred,
        metrics=tuple(
            v1.Metric(name=name, value=one.mean.value, ci_low=one.mean.low, ci_high=one.mean.high, samples=one.samples)
            for name, one in sorted(metrics.items())
        ),
        agreement=v1.Agreement(
            answers=agreed.answers, alpha=agreed.alpha.value, ci_low=agreed.alpha.low, ci_high=agreed.alpha.high
        )
        if agreed
        else None,
        decided=summary.decided,
        submission=summary.submission,
        cut_answers=summary.cut_answers,
        undecided=summary.undecided,
        unjudged=summary.unjudged,
        judged_by=JudgedBy(
            name=judge.name,
            version=judge.version,
            model=judge.model,
            prompt_sha256=judge.prompt_sha256,
            parameters=dict(judge.parameters),
        ),
    )


def shown_comparison(comparison: Comparison | None, rival: Evaluation | None) -> dict[str, Any] | None:
    """The comparison as history and report show it."""
    if comparison is None or rival is None:
        return None
    against = {"compared_with": rival.adapter_id, "evaluation_id": rival.evaluation_id}
    return {
        **asdict(comparison),
        **against,
        "fallen": list(comparison.fallen),
        "regression": comparison.regression,
    }


def comparison_event(comparison: Comparison | None, rival: Evaluation | None) -> v1.Comparison | None:
    """The comparison in the event."""
    if comparison is None or rival is None:
        return None
    return v1.Comparison(
        compared_with=rival.adapter_id,
        evaluation_id=rival.evaluation_id,
        samples=comparison.samples,
        difference=comparison.difference.value,
        ci_low=comparison.difference.low,
        ci_high=comparison.difference.high,
        criteria=tuple(
            v1.CriterionChange(criterion=name, difference=change.difference, chance=change.chance, fell=change.fell)
            for name, change in comparison.criteria.items()
        ),
    )


def shown_preference(preference: Preference | None, rival: Evaluation | None) -> dict[str, Any] | None:
    """Which version's answers were preferred, as history and report show it."""
    if preference is None or rival is None:
        return None
    return {**asdict(preference), "compared_with": rival.adapter_id, "evaluation_id": rival.evaluation_id}


def preference_event(preference: Preference | None, rival: Evaluation | None) -> v1.Preference | None:
    """The same, as the event carries it."""
    if preference is None or rival is None:
        return None
    return v1.Preference(
        compared_with=rival.adapter_id,
        evaluation_id=rival.evaluation_id,
        samples=preference.samples,
        wins=preference.wins,
        losses=preference.losses,
        ties=preference.ties,
        win_rate=preference.win_rate.value,
        ci_low=preference.win_rate.low,
        ci_high=preference.win_rate.high,
        consistency=preference.consistency,
        position_bias=preference.position_bias,
    )


def report_content(
    evaluation: Evaluation,
    version: GoldenVersion,
    summary: Summary,
    rows: list[dict[str, Any]],
    *,
    comparison: dict[str, Any] | None,
    preference: dict[str, Any] | None,
    judging: dict[str, Any],
    metrics: Mapping[str, MetricSummary],
) -> bytes:
    """Everything that the score follows from, as JSON."""
    kept = ("evaluation_id", "adapter_id", "family", "domain", "artifact_sha256", "base_model", "judge")
    body = {
        **{name: getattr(evaluation, name) for name in (*kept, "max_tokens", "pass_threshold", "requested_by")},
        "golden": {
            "dataset_id": version.dataset_id,
            "version": version.version,
            "sha256": evaluation.golden_sha256,
            "context_use": version.context_use,
        },
        "summary": asdict(summary),
        "comparison": comparison,
        "preference": preference,
        "judging": judging,
        "metrics": {name: asdict(one) for name, one in metrics.items()},
        "samples": [{n: v for n, v in row.items() if n != "evaluation_id"} for row in rows],
    }
    return json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True, default=str).encode()
