"""Series of token counts."""

import pytest
from prometheus_client import REGISTRY

from services.inference.metrics import TOKENS, TokenCounts


@pytest.fixture(autouse=True)
def fresh() -> None:
    TOKENS.clear()


def _series() -> set[tuple[str, str]]:
    return {
        (sample.labels["answered_by"], sample.labels["adapter_id"])
        for family in REGISTRY.collect()
        if family.name == "lorafleet_inference_tokens"
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_ids_of_adapters_are_in_no_label_by_default() -> None:
    counts = TokenCounts(by_answer=True, ids=False)
    counts.count("adapter", "shop-lora-v1.0.0", prompt=1, completion=1)
    counts.count("base", "", prompt=1, completion=1)
    assert _series() == {("adapter", ""), ("base", "")}


def test_basic_monitoring_has_one_sum_even_where_ids_are_wanted() -> None:
    counts = TokenCounts(by_answer=False, ids=True)
    counts.count("adapter", "shop-lora-v1.0.0", prompt=1, completion=1)
    counts.count("base", "", prompt=1, completion=1)
    assert _series() == {("", "")}


def test_more_adapters_than_have_a_series_share_one() -> None:
    counts = TokenCounts(by_answer=True, ids=True)
    for number in range(2 * TokenCounts.MOST_IDS):
        counts.count("adapter", f"a{number}", prompt=1, completion=2)
    assert len(_series()) == TokenCounts.MOST_IDS + 1
    assert TOKENS.labels("completion", "adapter", "other")._value.get() == 2 * TokenCounts.MOST_IDS
    counts.count("adapter", "a0", prompt=1, completion=2)
    assert TOKENS.labels("completion", "adapter", "a0")._value.get() == 4
