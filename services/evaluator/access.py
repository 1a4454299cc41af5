"""What endpoints depend on: the service, and who may see and do what. A domain is the tenancy boundary."""

from __future__ import annotations

from typing import Annotated

import asyncpg
from fastapi import Depends

from fleet_kit.auth import Caller, require
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from fleet_kit.http import dependency
from services.evaluator import store
from services.evaluator.domain import GoldenVersion
from services.evaluator.golden import sets as golden_sets
from services.evaluator.parts import EvaluatorService

Running = Annotated[EvaluatorService, Depends(dependency(EvaluatorService))]
Reader = Annotated[Caller, Depends(require("adapters:read"))]
Writer = Annotated[Caller, Depends(require("adapters:write"))]


async def visible_evaluation(connection: Connection, evaluation_id: str, caller: Caller) -> asyncpg.Record:
    """The evaluation's row; a 404 Problem if there is none or it is outside the caller's domains."""
    row = await store.evaluation_row(connection, evaluation_id)
    if row is None or not caller.reaches(row["domain"]):
        raise Problem(404, "Evaluation not found", f"no evaluation {evaluation_id!r}", field="evaluation_id")
    return row


async def visible_golden(connection: Connection, dataset_id: str, version: str | None, caller: Caller) -> GoldenVersion:
    """The version, or the newest; a 404 Problem if there is none or it lies outside the caller's domains."""
    try:
        found = await golden_sets.get(connection, dataset_id, version)
        if not caller.reaches(found.domain):
            raise golden_sets.unknown(dataset_id, version)
    except golden_sets.Unknown as error:
        raise Problem(404, "Golden data set not found", str(error), field="dataset_id") from error
    return found
