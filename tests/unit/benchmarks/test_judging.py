"""The measurement of judges finds the skill and the bias that a scripted judge was given."""

import pytest

from benchmarks.judging import Duel, Script, measure, rows_of, scripted, scripted_settings

DUELS = [Duel(f"Name the number after {n}.", f"It is {n + 1}.", f"Surely {n}.") for n in range(40, 70)]


@pytest.mark.parametrize("script", [Script(1.0, 0.0), Script(0.7, 0.0), Script(0.8, 0.4), Script(0.5, 1.0)])
async def test_what_is_measured_is_what_the_script_did_in_spite_of_busy_and_broken_answers(script: Script) -> None:
    with scripted(script, DUELS) as url:
        found, missing = await measure(DUELS, scripted_settings(url))
    assert found is not None
    assert missing == 0
    measured = (found.win_rate.value, found.consistency, found.position_bias)
    assert measured == pytest.approx(script.truth(DUELS))
    assert all(row.met for row in rows_of("a judge", found, script.truth(DUELS), missing))
    assert not all(row.met for row in rows_of("a judge", found, (0.123, 0.123, 0.123), missing))


def test_the_scripts_differ_in_what_is_measured() -> None:
    truths = [Script(skill, first).truth(DUELS) for skill, first in ((1.0, 0.0), (0.7, 0.0), (0.5, 1.0))]
    assert truths[0] == (1, 1, 0)
    assert truths[2] == (0.5, 0, 1)
    assert 0.5 < truths[1][0] < 1
