"""The ladder of levels over readings of memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.policies.pressure import Ladder, Level


@pytest.mark.requirement("AS-6.1")
def test_levels_begin_at_their_thresholds_and_end_a_margin_below() -> None:
    ladder = Ladder(medium=0.7, high=0.8, critical=0.9, margin=0.05)
    level, seen = Level.LOW, []
    for share in (0.1, 0.7, 0.66, 0.64, 0.95, 0.86, 0.84, 0.76, 0.74, 0.69, 0.1):
        level = ladder.step(level, share)
        seen.append(level.name)
    assert seen == [
        *("LOW", "MEDIUM", "MEDIUM", "LOW", "CRITICAL", "CRITICAL"),
        *("HIGH", "HIGH", "MEDIUM", "MEDIUM", "LOW"),
    ]


@given(share=st.floats(0, 1.2), level=st.sampled_from(Level), wobble=st.floats(-0.02, 0.02))
def test_a_share_that_wobbles_by_less_than_the_margin_changes_the_level_once_at_most(
    share: float, level: Level, wobble: float
) -> None:
    ladder = Ladder()
    levels = [level := ladder.step(level, share + wobble * (-1) ** turn) for turn in range(8)]
    assert len(set(levels[1:])) == 1
