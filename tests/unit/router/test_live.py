"""What the index in memory finds, against all similarities and thresholds."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router import store
from services.router.calibration import Level
from services.router.decision import decide
from services.router.evidence import Evidence, Kind
from services.router.live import LiveIndex
from services.router.search import SearchIndex
from services.router.store import LiveRoute

DIMENSION = 16
LEVEL = Level(0.05, {Kind.CENTROIDS: 0.3, Kind.EXAMPLES: 0.3, Kind.DESCRIPTION: 0.1})
NAMES = "abcdef"


def route(name: str) -> LiveRoute:
    return LiveRoute(f"{name}-v1", name, ("even", "odd")[NAMES.index(name) % 2], "1.0.0", "", 1, 0)


def evidence(seed: int, scatter: float) -> Evidence:
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((5, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kind = Kind.CENTROIDS if seed % 4 else Kind.DESCRIPTION
    nearness = draw.normal(0.4, scatter, 40 if seed % 4 else 0).astype(np.float32)
    return Evidence(kind, vectors, nearness)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(0, 9), st.sampled_from([0.01, 0.2]), st.booleans()), max_size=14
    ),
    st.integers(0, 99),
    st.sampled_from([None, ["even"], ["odd", "another"]]),
)
async def test_an_answer_is_that_of_all_similarities_after_any_changes(
    changes: list[tuple[str, int, float, bool]], seed: int, domains: list[str] | None
) -> None:
    held: dict[str, Evidence] = {}

    async def read(_connection: Any, _model: str, families: list[str]) -> list[tuple[LiveRoute, Evidence]]:
        return [(route(name), held[name]) for name in families if name in held]

    index = LiveIndex(DIMENSION, "model@0", LEVEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "live_evidence", read)
        for name, made_from, scatter, gone in changes:
            if gone:
                held.pop(name, None)
            else:
                held[name] = evidence(made_from, scatter)
            await index.load(None, [name])  # type: ignore[arg-type]
    query = evidence(seed, 0.1).vectors[:1]
    found = await index.find(query, np.ones(1, dtype=np.float32), domains)
    # A threshold of its own for every adapter would be missed if the floors of the search did not follow.
    everything = await index.find(query, np.ones(1, dtype=np.float32), domains, threshold=-1)
    thresholds = {one.route.family: one.threshold for one in await index.routes()}
    index.close()
    candidates = []
    for one in everything:
        threshold = thresholds[one.route.family]
        assert threshold is not None
        candidates.append(
            type(one.candidate)(one.candidate.adapter_id, one.route.family, one.candidate.score, threshold.value)
        )
    assert {one.route.family for one in everything} == {
        name for name in held if domains is None or route(name).domain in domains
    }
    assert decide([one.candidate for one in found], 0.05) == decide(candidates, 0.05)


async def test_the_floors_of_the_search_follow_an_activation_that_moves_all_thresholds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else an adapter that is neither the nearest nor the second would be missed."""
    vector = np.eye(4, DIMENSION, dtype=np.float32)
    query = (0.6 * vector[3] + 0.8 * vector[0])[None]
    draw = np.random.default_rng(0)
    held = {
        name: Evidence(Kind.CENTROIDS, vector[:1] * 0.8 + vector[number : number + 1] * 0.6, narrow)
        for number, (name, narrow) in enumerate(
            (name, draw.normal(0.7, 0.001, 200).astype(np.float32)) for name in NAMES[:4]
        )
        if number
    }
    wide = Evidence(Kind.CENTROIDS, -vector[:1], draw.normal(0.7, 0.1, 4000).astype(np.float32))

    async def read(_connection: Any, _model: str, families: list[str]) -> list[tuple[LiveRoute, Evidence]]:
        return [(route(name), held[name]) for name in families if name in held]

    monkeypatch.setattr(store, "live_evidence", read)
    index = LiveIndex(DIMENSION, "model@0", LEVEL)
    await index.load(None, list(held))  # type: ignore[arg-type]
    weight = np.ones(1, dtype=np.float32)

    async def suiting() -> list[str]:
        return sorted(one.route.family for one in await index.find(query, weight, None) if one.candidate.suits)

    assert await suiting() == ["d"]  # b and c are at 0.64, and their thresholds at 0.7
    held["f"] = wide
    await index.load(None, ["f"])  # type: ignore[arg-type]
    assert await suiting() == ["b", "c", "d"]
    index.close()


async def test_the_event_loop_runs_while_a_search_does_and_a_change_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = LiveIndex(DIMENSION, "model@0", LEVEL)
    began, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def near_each(*_given: Any) -> list[list[tuple[str, float]]]:
        loop.call_soon_threadsafe(began.set)
        assert may_end.wait(20)
        assert index._routes == {}, "the index changed during the search"
        return [[]]

    async def read(_connection: Any, _model: str, _families: list[str]) -> list[tuple[LiveRoute, Evidence]]:
        return [(route("a"), evidence(1, 0.1))]

    monkeypatch.setattr(store, "live_evidence", read)
    monkeypatch.setattr(SearchIndex, "near_each", near_each)
    try:
        async with asyncio.timeout(20):
            search = asyncio.create_task(index.find(evidence(1, 0.1).vectors, np.ones(5, dtype=np.float32), None))
            await began.wait()
            change = asyncio.create_task(index.load(None, ["a"]))  # type: ignore[arg-type]
            may_end.set()  # by the loop, which another request would get as well
            assert await search == []
            await change
        assert [one.route.family for one in await index.routes()] == ["a"]
    finally:
        may_end.set()
        index.close()


async def test_queries_that_wait_for_a_search_are_searched_together_and_one_alone_waits_for_nobody() -> None:
    """Of those that wait, one that is cancelled costs the others nothing, and a fault comes to each."""
    index = LiveIndex(DIMENSION, "model@0", LEVEL)
    index._set_all([(route(name), evidence(at, 0.1)) for at, name in enumerate(NAMES)])
    weight = np.ones(1, dtype=np.float32)
    queries = [evidence(seed, 0.1).vectors[:1] for seed in range(10)]
    expected = [await index.find(query, weight, None) for query in queries]
    rounds: list[int] = []
    search = index._search.near_each

    def counted(wanted: Any) -> Any:
        rounds.append(len(wanted))
        return search(wanted)

    index._search.near_each = counted  # type: ignore[method-assign]
    free = threading.Event()
    index._thread.submit(free.wait, 5)
    finding = [asyncio.create_task(index.find(query, weight, None)) for query in queries]
    dropped = asyncio.create_task(index.find(queries[0], weight, None))
    await asyncio.sleep(0)
    dropped.cancel()
    await asyncio.wait({dropped})
    free.set()
    assert await asyncio.gather(*finding) == expected
    assert rounds == [8, 2]
    assert await index.find(queries[0], weight, None) == expected[0]
    assert rounds == [8, 2, 1]
    index._routes.clear()
    with pytest.raises(KeyError):
        await index.find(queries[0], weight, None)
    index.close()
