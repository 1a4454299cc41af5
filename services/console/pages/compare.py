"""Versions against one another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lorafleet import calls
from lorafleet.responses import Evaluation, EvaluationDetail, JudgedSample
from services.console.rendering import page
from services.console.together import together
from services.console.viewer import ThisViewer, Viewer

router = APIRouter(include_in_schema=False)
SIZE = 50
"""Samples of a pair on one page."""


@dataclass(frozen=True, slots=True)
class Duel:
    """One golden sample as two versions answered it."""

    first: JudgedSample
    second: JudgedSample

    @property
    def difference(self) -> float | None:
        """First minus second, in points; None where one has no score."""
        if self.first.overall is None or self.second.overall is None:
            return None
        return self.first.overall - self.second.overall


@dataclass(frozen=True, slots=True)
class Duels:
    """All samples on which both were judged, those that the first lost most clearly first."""

    first: str
    second: str
    every: Sequence[Duel]

    @property
    def won(self) -> int:
        return sum(one.difference is not None and one.difference > 0 for one in self.every)

    @property
    def lost(self) -> int:
        return sum(one.difference is not None and one.difference < 0 for one in self.every)

    def of_page(self, number: int) -> Sequence[Duel]:
        """The samples of a page, from 1."""
        return self.every[(number - 1) * SIZE : number * SIZE]


@router.get("/console/compare")
async def show(
    request: Request,
    viewer: ThisViewer,
    versions: Annotated[list[str] | None, Query()] = None,
    samples: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """Metrics with intervals, tested differences, configuration, preferences; a form while fewer than two are named."""
    named = [one for text in versions or [] for one in text.replace(",", " ").split()]
    if len(named) < 2:
        return page(request, "compare.html", viewer, named=named, found=None)
    found = await viewer.call(calls.compare(named))
    duels = await asyncio.gather(*(_duels(viewer, named[0], other) for other in named[1:]))
    return page(
        request, "compare.html", viewer, named=named, found=found, duels=[one for one in duels if one.every],
        samples=samples, size=SIZE,
    )  # fmt: skip


async def _duels(viewer: Viewer, first: str, second: str) -> Duels:
    """From the newest evaluations of both on the same terms; none while the evaluator is unavailable."""
    of_first, of_second = await together(_scored(viewer, first), _scored(viewer, second))
    found = newest_alike(of_first, of_second)
    if found is None:
        return Duels(first, second, ())
    own = await viewer.if_available(calls.evaluation(found[0].evaluation_id))
    other = await viewer.if_available(calls.evaluation(found[1].evaluation_id))
    return Duels(first, second, duels(own, other) if own and other else ())


async def _scored(viewer: Viewer, adapter_id: str) -> list[Evaluation]:
    """Newest first; none while the evaluator is unavailable."""
    found = await viewer.if_available(calls.evaluations(adapter_id))
    return [one for one in found or [] if one.state == "scored" and one.golden_sha256]


def newest_alike(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> tuple[Evaluation, Evaluation] | None:
    """The newest evaluation of each, both on the same terms; newest first in either."""
    alike = {one.terms: one for one in reversed(second)}
    return next(((one, alike[one.terms]) for one in first if one.terms in alike), None)


def duels(first: EvaluationDetail, second: EvaluationDetail) -> list[Duel]:
    """Samples that both have, from the clearest loss of the first to its clearest win; those without scores last."""
    others = {one.sample_id: one for one in second.results}
    both = [Duel(one, others[one.sample_id]) for one in first.results if one.sample_id in others]
    return sorted(both, key=lambda one: (one.difference is None, one.difference or 0.0))
