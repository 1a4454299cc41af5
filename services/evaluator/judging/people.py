"""Answers of a domain that both a judge and people have scored: what their agreement is measured on."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_kit.db import Connection
from services.evaluator.judging import label_store
from services.evaluator.judging.agreement import Labelled
from services.evaluator.judging.calibration import Calibration
from services.evaluator.judging.label_store import LabelledAnswer


async def scored_by_both(
    connection: Connection, calibrations: Mapping[str, Calibration], domain: str
) -> list[Labelled]:
    """With the mean of these judges' calibrated scores, the last labelled last.

    As in a panel, judges that could not decide are left out, and answers that half of them or more could not.
    """
    by_answer: dict[tuple[str, str], list[tuple[LabelledAnswer, Calibration]]] = {}
    for name, calibration in calibrations.items():
        for one in await label_store.labelled(connection, name, domain):
            by_answer.setdefault(one.answer, []).append((one, calibration))
    common = [scored for scored in by_answer.values() if len(scored) * 2 > len(calibrations)]
    common.sort(key=lambda scored: scored[0][0].at)
    return [_pooled(scored) for scored in common]


def _pooled(scored: list[tuple[LabelledAnswer, Calibration]]) -> Labelled:
    mean = sum(calibration.of_points(one.labelled.judge) for one, calibration in scored) / len(scored)
    one, _ = scored[0]
    return Labelled(mean, one.labelled.human, one.labelled.length)
