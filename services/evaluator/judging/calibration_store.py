"""SQL of calibrations: one statement a function, connection first."""

from __future__ import annotations

from datetime import datetime

from fleet_kit.db import Connection
from services.evaluator.judging.calibration import UNCALIBRATED, Calibration


async def add_calibration(connection: Connection, judge: str, domain: str, fitted: Calibration, by: str) -> None:
    await connection.execute(
        "insert into judge_calibration (judge, domain, intercept, slope, answers, fitted_by)"
        " values ($1, $2, $3, $4, $5, $6)",
        judge,
        domain,
        fitted.intercept,
        fitted.slope,
        fitted.answers,
        by,
    )


async def calibration(connection: Connection, judge: str, domain: str, at: datetime) -> Calibration:
    """The newest one that was there at that time; none leaves scores as they are."""
    row = await connection.fetchrow(
        "select intercept, slope, answers from judge_calibration where judge = $1 and domain = $2 and fitted_at <= $3"
        " order by fitted_at desc limit 1",
        judge,
        domain,
        at,
    )
    return Calibration(**dict(row)) if row else UNCALIBRATED
