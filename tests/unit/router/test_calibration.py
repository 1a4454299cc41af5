"""Thresholds from prompts of the adapter's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.routing_profile import RoutingProfile
from services.router.calibration import STEP, Calibration, Level, Threshold, share_not_nearer
from services.router.evidence import Evidence, Kind, of_profile

LEVEL = Level(0.05, {Kind.CENTROIDS: 0.42, Kind.EXAMPLES: 0.42, Kind.DESCRIPTION: 0.27})


def known(nearness: np.ndarray | list[float], kind: Kind = Kind.CENTROIDS) -> Evidence:
    return Evidence(kind, np.eye(1, 4, dtype=np.float32), np.asarray(nearness, dtype=np.float32))


def calibrate(adapters: dict[str, Evidence], level: Level) -> dict[str, Threshold]:
    made = Calibration(level, adapters)
    return {name: made.threshold(name) for name in adapters}


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.8), st.floats(0.5, 0.8))
def test_the_stated_part_of_all_own_queries_is_turned_away(seed: int, first: float, second: float) -> None:
    draw = np.random.default_rng(seed)
    adapters = {
        name: known(np.clip(draw.normal(middle, 0.07, 200), -1, 1)) for name, middle in (("a", first), ("b", second))
    }
    thresholds = calibrate(adapters, LEVEL)
    away = np.mean([(one.nearness < thresholds[name].value).mean() for name, one in adapters.items()])
    assert away <= 0.05
    assert away > 0.02
    assert thresholds["a"].calibrated_on == 200


@given(st.integers(0, 2**32 - 1), st.integers(100, 400))
def test_the_quantile_is_exact_to_a_step(seed: int, prompts: int) -> None:
    nearness = np.random.default_rng(seed).normal(0.7, 0.08, prompts).astype(np.float32)
    made = Calibration(LEVEL, {"one": known(nearness)})
    exact = np.sort(nearness)[int((prompts + 1) * LEVEL.false_rejection) - 1]
    assert exact - STEP <= made.threshold("one").value <= exact + 1e-6


def test_an_adapter_whose_queries_come_less_near_has_a_lower_threshold() -> None:
    draw = np.random.default_rng(0)
    found = calibrate({"near": known(draw.normal(0.8, 0.05, 100)), "far": known(draw.normal(0.6, 0.05, 100))}, LEVEL)
    assert found["near"].value - found["far"].value == pytest.approx(0.2, abs=0.02)


def test_few_prompts_take_the_scatter_of_the_others() -> None:
    draw = np.random.default_rng(0)
    others = {f"other-{n}": known(draw.normal(0.7, 0.08, 200)) for n in range(5)}
    alone = calibrate({"few": known([0.7] * 8)}, LEVEL)["few"]
    among = calibrate({"few": known([0.7] * 8), **others}, LEVEL)["few"]
    assert alone.value == pytest.approx(0.42)  # eight prompts say nothing of the twentieth part
    assert among.value == pytest.approx(0.7 - 1.645 * 0.08, abs=0.03)


def test_without_enough_own_prompts_the_setting_holds_and_says_so() -> None:
    found = calibrate({"few": known([0.9] * 7, Kind.EXAMPLES), "told": known([], Kind.DESCRIPTION)}, LEVEL)
    assert (found["few"].value, found["few"].calibrated_on) == (0.42, 0)
    assert (found["told"].value, found["told"].calibrated_on) == (0.27, 0)


def test_scattered_prompts_do_not_make_an_adapter_take_everything() -> None:
    assert calibrate({"any": known(np.linspace(-0.2, 0.6, 100))}, LEVEL)["any"].value == 0.27


def test_an_activation_moves_the_thresholds_of_the_others() -> None:
    draw = np.random.default_rng(0)
    first = known(draw.normal(0.7, 0.03, 200))
    alone = calibrate({"first": first}, LEVEL)["first"].value
    among = calibrate({"first": first, "wide": known(draw.normal(0.7, 0.12, 200))}, LEVEL)["first"].value
    assert among < alone - 0.03


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 99)), max_size=12))
def test_thresholds_follow_from_what_is_live_however_it_came_about(changes: list[tuple[str, int, int]]) -> None:
    calibration, live = Calibration(LEVEL), {}
    for name, prompts, seed in changes:
        if prompts:
            live[name] = known(np.random.default_rng(seed).normal(0.7, 0.1, prompts))
            calibration.put(name, live[name])
        else:
            live.pop(name, None)
            calibration.remove(name)
        assert {one: calibration.threshold(one) for one in live} == calibrate(live, LEVEL)
    with pytest.raises(KeyError):
        calibration.threshold("another")


def test_how_sure_a_similarity_is_counts_own_prompts_that_come_no_nearer() -> None:
    nearness = np.linspace(0.5, 0.9, 9, dtype=np.float32)
    assert share_not_nearer(nearness, 0.95) == 1
    assert share_not_nearer(nearness, 0.4) == pytest.approx(0.1)
    assert share_not_nearer(nearness[:3], 0.4) is None


def test_a_profile_s_held_out_prompts_say_how_near_its_queries_come() -> None:
    centroids = np.eye(2, 4, dtype=np.float32)
    held_out = np.array([[0.8, 0.6, 0, 0], [0, 0.6, 0.8, 0]], dtype=np.float32)
    found = of_profile(RoutingProfile(centroids, np.ones(2, np.int64), np.zeros(2, np.float32), held_out))
    np.testing.assert_allclose(found.nearness, [0.8, 0.6])
    none = of_profile(RoutingProfile(centroids, np.ones(2, np.int64), np.zeros(2, np.float32), held_out[:0]))
    assert len(none.nearness) == 0
