"""The score of an evaluation whose samples are judged: summarised, compared, stored and published at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from fleet_events.v1 import RegressionDetected
from fleet_kit.blobs import BlobRef
from fleet_kit.transaction import Transaction
from fleet_statistics.paired import Comparison
from services.evaluator import domain, incumbent, store
from services.evaluator.answer_metrics.metrics import ACCURACY
from services.evaluator.answer_metrics.summary import MetricSummary, summarise_metrics
from services.evaluator.domain import Evaluation, SampleResult, Summary
from services.evaluator.evaluation_run import EvaluationRun
from services.evaluator.judging import pair_store
from services.evaluator.judging import store as judge_store
from services.evaluator.judging.agreement import Agreement, Labelled, agreement
from services.evaluator.judging.pair_store import StoredPair
from services.evaluator.judging.pairwise import Preference, preference
from services.evaluator.judging.people import scored_by_both
from services.evaluator.judging.store import Spent
from services.evaluator.result import (
    comparison_event,
    preference_event,
    report_content,
    scored_event,
    shown_comparison,
    shown_preference,
)

log = structlog.get_logger()


@dataclass(frozen=True)
class _Stored:
    """What the evaluation and the one that it is compared with have stored."""

    evaluation: Evaluation
    results: list[SampleResult]
    rows: list[dict[str, Any]]
    submission: int
    rival: Evaluation | None
    rival_results: list[SampleResult]
    not_compared: str
    pairs: list[StoredPair]
    labelled: list[Labelled]
    spent: Spent
    exchanges: list[dict[str, object]]


@dataclass(frozen=True)
class _Outcome:
    """What follows from it."""

    summary: Summary
    comparison: Comparison | None
    preference: Preference | None
    agreement: Agreement | None
    metrics: dict[str, MetricSummary]


async def score(run: EvaluationRun, last: Callable[[], AbstractAsyncContextManager[Transaction]]) -> None:
    """Store and publish the score; `last` opens the transaction that does. Raises EvaluationFailure without one."""
    stored = await _read(run)
    outcome = await _outcome(run, stored)
    content = _report(run, stored, outcome)
    report = await run.service.blobs.put("reports", content, content_type="application/json")
    by_sample = json.dumps(domain.scores_by_sample(stored.results), sort_keys=True).encode()
    scores = await run.service.blobs.put("scores", by_sample, content_type="application/json")
    async with last() as tx:
        await _publish(tx, run, stored, outcome, report=report, scores=scores)
    summary = outcome.summary
    log.info("evaluation_scored", evaluation_id=run.evaluation_id, score=summary.score.value, samples=summary.samples)


async def _read(run: EvaluationRun) -> _Stored:
    evaluation = await run.stored()
    async with run.work.transaction() as tx:
        rival = await store.rival(tx.connection, evaluation)
        against = await store.evaluation(tx.connection, rival) if rival else None
        return _Stored(
            evaluation=evaluation,
            results=await store.results(tx.connection, run.evaluation_id),
            rows=[dict(row) for row in await store.result_rows(tx.connection, run.evaluation_id)],
            submission=1 if evaluation.compares_for else await store.submission(tx.connection, evaluation),
            rival=against,
            rival_results=await store.results(tx.connection, rival) if rival else [],
            not_compared=await incumbent.why_not_compared(evaluation, against, tx),
            pairs=await pair_store.pairs(tx.connection, run.evaluation_id, rival) if rival else [],
            labelled=await scored_by_both(tx.connection, run.judge.calibrations, evaluation.domain),
            spent=await judge_store.spent(tx.connection, run.evaluation_id),
            exchanges=await judge_store.exchanges(tx.connection, run.evaluation_id),
        )


async def _outcome(run: EvaluationRun, stored: _Stored) -> _Outcome:
    difficulties = {sample.sample_id: sample.difficulty for sample in run.samples}
    summary = domain.summarise(stored.results, difficulties, stored.evaluation.pass_threshold, stored.submission)
    metrics = summarise_metrics((result.metrics for result in stored.results), summary.confidence)
    metrics[ACCURACY] = MetricSummary(summary.pass_rate, summary.decided, summary.samples - summary.decided)
    judged = [one.pair for one in stored.pairs if one.pair]
    return _Outcome(
        summary=summary,
        # Thousands of draws take a moment; the event loop serves others meanwhile.
        comparison=await asyncio.to_thread(domain.compare, stored.results, stored.rival_results)
        if stored.rival
        else None,
        preference=preference(judged, len(stored.pairs) - len(judged), summary.confidence),
        agreement=await asyncio.to_thread(agreement, stored.labelled),
        metrics=metrics,
    )


def _why_not(stored: _Stored, comparison: Comparison | None) -> str:
    if stored.rival is None or comparison is not None:
        return stored.not_compared
    return f"fewer than two samples have a score for both it and {stored.rival.adapter_id}"


def _report(run: EvaluationRun, stored: _Stored, outcome: _Outcome) -> bytes:
    pairs = {one.sample_id: one.shown() for one in stored.pairs}
    judging = {
        **asdict(run.judge.description),
        "agreement": asdict(outcome.agreement) if outcome.agreement else None,
        "spent": asdict(stored.spent),
        "exchanges": stored.exchanges,
    }
    return report_content(
        stored.evaluation,
        run.version,
        outcome.summary,
        [{**row, "pair": pairs.get(row["sample_id"])} for row in stored.rows],
        comparison=shown_comparison(outcome.comparison, stored.rival),
        preference=shown_preference(outcome.preference, stored.rival),
        judging=judging,
        metrics=outcome.metrics,
    )


async def _publish(
    tx: Transaction, run: EvaluationRun, stored: _Stored, outcome: _Outcome, *, report: BlobRef, scores: BlobRef
) -> None:
    evaluation, comparison = stored.evaluation, outcome.comparison
    summary = asdict(outcome.summary)
    summary["judging"] = asdict(run.judge.description) | asdict(stored.spent)
    summary["metrics"] = {name: asdict(one) for name, one in outcome.metrics.items()}
    await store.finish_scored(
        tx.connection,
        run.evaluation_id,
        summary=summary,
        comparison=shown_comparison(comparison, stored.rival),
        preference=shown_preference(outcome.preference, stored.rival),
        report=report.model_dump(mode="json"),
    )
    published = comparison_event(comparison, stored.rival)
    scored = scored_event(
        evaluation,
        outcome.summary,
        published,
        preference_event(outcome.preference, stored.rival),
        report,
        agreed=outcome.agreement,
        metrics=outcome.metrics,
        regression=bool(comparison and comparison.regression),
        judge=run.judge.description,
        scores=scores,
        not_compared=_why_not(stored, comparison),
    )
    await tx.emit(scored, evaluation.adapter_id)
    if comparison and published and comparison.regression:
        fallen = RegressionDetected(
            evaluation_id=run.evaluation_id,
            adapter_id=evaluation.adapter_id,
            domain=evaluation.domain,
            compared_with=published.compared_with,
            difference=published.difference,
            ci_low=published.ci_low,
            ci_high=published.ci_high,
            criteria=comparison.fallen,
        )
        await tx.emit(fallen, evaluation.adapter_id)
