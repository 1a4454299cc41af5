"""What the health page takes of a service's metrics, which the service's own code wrote."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fleet_kit import metrics
from services.console.figures import HITS, SHOWN, Figure, figures_in
from services.inference import metrics as inference

pytestmark = pytest.mark.unit


def written() -> list[Figure]:
    registry = CollectorRegistry()
    for one in (metrics.CONSUMER_LAG, metrics.OUTBOX_WAITING, inference.ROWS, inference.ROWS_MOST, inference.SLOTS):
        registry.register(one)
    for one in (inference.PRESSURE, inference.MEMORY_SHARE, inference.PREFIX_BYTES, inference.CACHE):
        registry.register(one)
    registry.register(inference.PREFIX_TOKENS)
    return list(figures_in(generate_latest(registry).decode()))


def test_lag_queue_slots_cache_and_memory_pressure_are_shown() -> None:
    metrics.CONSUMER_LAG.labels("registry-evaluation_scored").set(12)
    metrics.CONSUMER_LAG.labels("router-adapter_activated").set(0)
    inference.ROWS.labels("base", "waiting").set(7)
    inference.SLOTS.labels("base", "loaded").set(3)
    inference.PRESSURE.set(2)
    inference.MEMORY_SHARE.set(0.75)
    inference.CACHE.labels("hit").inc(3)
    inference.CACHE.labels("miss").inc(1)
    inference.count_prefix("base", 30, 40)
    found = {(one.what, one.of): one.value for one in written()}
    assert found["waiting for a consumer", "registry-evaluation_scored"] == "12"
    assert ("waiting for a consumer", "router-adapter_activated") not in found
    assert found["answers", "base, waiting"] == "7"
    assert found["slots", "base, loaded"] == "3"
    assert found["memory pressure", ""] == "high"
    assert found["memory used", ""] == "75 %"
    assert found["adapters found on disk", ""].endswith(" %")
    assert found["tokens of prompts found in the cache", ""].endswith(" %")


def test_every_metric_that_is_shown_is_one_that_a_service_has() -> None:
    kit = {name for one in vars(metrics).values() if (name := getattr(one, "_name", ""))}
    own = {name for one in vars(inference).values() if (name := getattr(one, "_name", ""))}
    assert SHOWN.keys() | HITS.keys() <= kit | own


def test_text_that_is_no_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        list(figures_in("<html>a proxy's page</html> x y"))
