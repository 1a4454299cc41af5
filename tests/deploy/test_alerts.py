"""The alerts name only metrics that the code keeps, with labels that they have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.promql import labels, metrics_of, named


@pytest.fixture(scope="module")
def rules(tools: Any) -> list[dict[str, Any]]:
    document = yaml.safe_load((tools.root / "k8s" / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def metrics(tools: Any) -> dict[str, set[str]]:
    return metrics_of(tools.root)


def test_every_alert_has_what_prometheus_and_its_reader_need(rules: list[dict[str, Any]]) -> None:
    assert len(rules) >= 5
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_every_metric_and_label_of_an_alert_is_one_that_the_code_keeps(
    rules: list[dict[str, Any]], metrics: dict[str, set[str]]
) -> None:
    for rule in rules:
        read, grouped = named(rule["expr"]), labels(rule["expr"])
        assert read, rule["alert"]
        assert read <= metrics.keys(), rule["alert"]
        assert grouped <= set().union(*(metrics[name] for name in read)), rule["alert"]
        shown = set(re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]))
        assert shown <= grouped, rule["alert"]


def test_filling_a_stream_and_dead_letters_are_alerts(rules: list[dict[str, Any]]) -> None:
    watched = " ".join(rule["expr"] for rule in rules)
    for metric in ("lorafleet_stream_fill_ratio", "lorafleet_dead_letters", "lorafleet_outbox_waiting"):
        assert metric in watched


def test_every_alert_names_its_section_of_the_runbook(rules: list[dict[str, Any]], tools: Any) -> None:
    sections = re.findall(r"^## (\w+)$", (tools.root / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules]
    assert [rule["annotations"]["runbook"] for rule in rules] == [f"docs/runbook.md#{one.lower()}" for one in sections]
