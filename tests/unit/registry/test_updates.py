"""Which available version is a recommended update of one that runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.registry.family import Adapter, Family, Status
from services.registry.policy import Comparison, Judgement
from services.registry.updating.update import best_update
from services.registry.version import SemVer
from tests.unit.registry import builders

pytestmark = pytest.mark.unit

OLD, NEW, NEWER = (f"tax-law-lora-v1.{n}.0" for n in range(3))


def version(
    adapter_id: str, better: float = 0.0, low: float = 0.0, *, base: str = "base", **changes: object
) -> Adapter:
    """An approved version, `better` points above OLD, which scores 80."""
    comparison = Comparison(OLD, 40, better, low, better + 3)
    evaluation = replace(
        builders.evaluation(adapter_id), judgement=Judgement(80 + better, 70, 90, decided=40, comparison=comparison)
    )
    made = Adapter(
        adapter_id,
        SemVer.parse(adapter_id.rpartition("-v")[2]),
        builders.submission(adapter_id, base=base),
        registered_at=builders.START,
        status=Status.APPROVED,
        evaluation=evaluation,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def family(*versions: Adapter) -> Family:
    return replace(builders.family(), versions=versions)


RUNNING = version(OLD, active=True)


@pytest.mark.requirement("AS-8.1")
@pytest.mark.parametrize(
    ("available", "recommended", "why"),
    [
        (version(NEW, 4, 1), True, "better: +4.0 points [1.0, 7.0], +5.0 %, on 40 samples"),
        (version(NEW, 4, -0.1), False, "not significantly better"),
        (version(NEW, 1.6, 1), False, "better by no more than the policy's 2 %"),
        (version(NEW, 1.7, 1), True, "+2.1 %"),
        (version(NEW, 9, 5, base="other"), False, "not compatible"),
        (replace(version(NEW), evaluation=None), False, f"not compared with {OLD}"),
    ],
)
def test_an_update_is_compatible_better_by_more_than_two_per_cent_and_surely_better(
    available: Adapter, recommended: bool, why: str
) -> None:
    found = best_update(family(RUNNING, available), RUNNING, frozenset(), 2.0)
    assert found is not None
    assert found.recommended is recommended
    assert why in found.why


def test_of_several_the_best_recommended_one_is_chosen_not_the_newest() -> None:
    found = best_update(family(RUNNING, version(NEW, 6, 3), version(NEWER, 4, 1)), RUNNING, frozenset(), 2.0)
    assert found is not None
    assert found.available.adapter_id == NEW
    worse = best_update(family(RUNNING, version(NEW, 1, -3), version(NEWER, 1, -1)), RUNNING, frozenset(), 2.0)
    assert worse is not None
    assert worse.available.adapter_id == NEWER


def test_what_was_taken_out_of_service_what_is_unapproved_and_what_is_lower_is_no_update() -> None:
    better = version(NEW, 6, 3)
    withdrawn = best_update(family(RUNNING, better), RUNNING, frozenset({NEW}), 2.0)
    assert withdrawn is not None
    assert "taken out of service" in withdrawn.why
    assert (
        best_update(family(RUNNING, replace(better, status=Status.PENDING_REVIEW)), RUNNING, frozenset(), 2.0) is None
    )
    assert best_update(family(RUNNING, better), better, frozenset(), 2.0) is None
