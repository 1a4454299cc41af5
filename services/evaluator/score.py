"""The score of an evaluation whose samples are judged: summarised, compared, stored and published at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict

import structlog

from fleet_events.v1 import RegressionDetected
from fleet_kit.transaction import Transaction
from services.evaluator import domain, store
from services.evaluator.answer_metrics.metrics import ACCURACY
from services.evaluator.answer_metrics.summary import MetricSummary, summarise_metrics
from services.evaluator.evaluation_run import EvaluationRun
from services.evaluator.judging import pair_store
from services.evaluator.judging import store as judge_store
from services.evaluator.judging.agreement import agreement
from services.evaluator.judging.pairwise import preference
from services.evaluator.judging.people import scored_by_both
from services.evaluator.result import (
    comparison_event,
    preference_event,
    report_content,
    scored_event,
    shown_comparison,
    shown_preference,
)

log = structlog.get_logger()


async def score(run: EvaluationRun, last: Callable[[], AbstractAsyncContextManager[Transaction]]) -> None:
    """Store and publish the score; `last` opens the transaction that does. Raises EvaluationFailure without one."""
    evaluation = await run.stored()
    async with run.work.transaction() as tx:
        results = await store.results(tx.connection, run.evaluation_id)
        rows = await store.result_rows(tx.connection, run.evaluation_id)
        rival = await store.rival(tx.connection, evaluation)
        rival_evaluation = await store.evaluation(tx.connection, rival) if rival else None
        rival_results = await store.results(tx.connection, rival) if rival else []
        pairs = await pair_store.pairs(tx.connection, run.evaluation_id, rival) if rival else []
        submission = 1 if evaluation.compares_for else await store.submission(tx.connection, evaluation)
        spent = await judge_store.spent(tx.connection, run.evaluation_id)
        labelled = await scored_by_both(tx.connection, run.judge.calibrations, evaluation.domain)
        exchanges = await judge_store.exchanges(tx.connection, run.evaluation_id)
    difficulties = {sample.sample_id: sample.difficulty for sample in run.samples}
    summary = domain.summarise(results, difficulties, evaluation.pass_threshold, submission)
    # Ten thousand draws take a moment; the event loop serves others meanwhile.
    comparison = await asyncio.to_thread(domain.compare, results, rival_results) if rival_evaluation else None
    agreed = await asyncio.to_thread(agreement, labelled)
    shown = shown_comparison(comparison, rival_evaluation)
    metrics = summarise_metrics((result.metrics for result in results), summary.confidence)
    metrics[ACCURACY] = MetricSummary(summary.pass_rate, summary.decided, summary.samples - summary.decided)
    judged_pairs = [one.pair for one in pairs if one.pair]
    preferred = preference(judged_pairs, len(pairs) - len(judged_pairs), summary.confidence)
    described = asdict(run.judge.description)
    judging = {
        **described,
        "agreement": asdict(agreed) if agreed else None,
        "spent": asdict(spent),
        "exchanges": exchanges,
    }
    compared = shown_preference(preferred, rival_evaluation)
    in_pairs = {one.sample_id: one.shown() for one in pairs}
    samples = [{**dict(row), "pair": in_pairs.get(row["sample_id"])} for row in rows]
    content = report_content(
        evaluation,
        run.version,
        summary,
        samples,
        comparison=shown,
        preference=compared,
        judging=judging,
        metrics=metrics,
    )
    report = await run.service.blobs.put("reports", content, content_type="application/json")
    async with last() as tx:
        await store.finish_scored(
            tx.connection,
            run.evaluation_id,
            summary=asdict(summary)
            | {"judging": described | asdict(spent), "metrics": {name: asdict(one) for name, one in metrics.items()}},
            comparison=shown,
            preference=compared,
            report=report.model_dump(mode="json"),
        )
        told = comparison_event(comparison, rival_evaluation)
        regression = bool(comparison and comparison.regression)
        scored = scored_event(
            evaluation,
            summary,
            told,
            preference_event(preferred, rival_evaluation),
            report,
            agreed=agreed,
            metrics=metrics,
            regression=regression,
            judge=run.judge.description,
        )
        await tx.emit(scored, evaluation.adapter_id)
        if comparison and told and comparison.regression:
            await tx.emit(
                RegressionDetected(
                    evaluation_id=run.evaluation_id,
                    adapter_id=evaluation.adapter_id,
                    domain=evaluation.domain,
                    compared_with=told.compared_with,
                    difference=told.difference,
                    ci_low=told.ci_low,
                    ci_high=told.ci_high,
                    criteria=comparison.fallen,
                ),
                evaluation.adapter_id,
            )
    log.info("evaluation_scored", evaluation_id=run.evaluation_id, score=summary.score.value, samples=summary.samples)
