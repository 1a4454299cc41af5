"""SQL of calibrations: one statement a function, connection first."""

from __future__ import annotations

from datetime import datetime

from fleet_kit.db import Connection
from services.evaluator.judging.calibration import UNCALIBRATED, Calibration
from services.evaluator.judging.pair_agreement import UNMEASURED, PairAccuracy


async def add_calibration(
    connection: Connection, judge: str, domain: str, fitted: Calibration, pairs: PairAccuracy, *, by: str
) -> None:
    await connection.execute(
        "insert into judge_calibration (judge, domain, intercept, slope, answers, fitted_by, pairs, pairs_agreed)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        judge,
        domain,
        fitted.intercept,
        fitted.slope,
        fitted.answers,
        by,
        pairs.pairs,
        pairs.agreed,
    )


async def calibration(
    connection: Connection, judge: str, domain: str, at: datetime
) -> tuple[Calibration, PairAccuracy]:
    """The newest one that was there at that time; none leaves scores and votes as they are."""
    row = await connection.fetchrow(
        "select intercept, slope, answers, pairs, pairs_agreed from judge_calibration"
        " where judge = $1 and domain = $2 and fitted_at <= $3 order by fitted_at desc limit 1",
        judge,
        domain,
        at,
    )
    if row is None:
        return UNCALIBRATED, UNMEASURED
    fitted = Calibration(row["intercept"], row["slope"], row["answers"])
    return fitted, PairAccuracy(row["pairs"], row["pairs_agreed"])
