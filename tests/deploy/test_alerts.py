"""The alerts name only metrics that the code keeps, with labels that they have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def rules(tools: Any) -> list[dict[str, Any]]:
    document = yaml.safe_load((tools.root / "k8s" / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def metrics(tools: Any) -> dict[str, set[str]]:
    """Each metric of the code with its labels."""
    found = {}
    pattern = re.compile(r'(?:Counter|Gauge|Histogram)\(\s*"(lorafleet_[a-z_]+)"(.*?)\n?\)\n', re.DOTALL)
    for folder in ("libs/fleet_kit", "services"):
        for path in (tools.root / folder).rglob("*.py"):
            for name, rest in pattern.findall(path.read_text()):
                labels = re.search(r"\[([^\]]*)\]", rest)
                found[name] = set(re.findall(r'"([a-z_]+)"', labels[1])) if labels else set()
    return found


def test_every_alert_has_what_prometheus_and_its_reader_need(rules: list[dict[str, Any]]) -> None:
    assert len(rules) >= 5
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_every_metric_and_label_of_an_alert_is_one_that_the_code_keeps(
    rules: list[dict[str, Any]], metrics: dict[str, set[str]]
) -> None:
    for rule in rules:
        named = re.findall(r"lorafleet_[a-z_]+", rule["expr"])
        assert named
        assert set(named) <= metrics.keys(), rule["alert"]
        grouped = re.findall(r"by \(([a-z_, ]+)\)", rule["expr"]) + re.findall(r"\{([a-z_]+)=", rule["expr"])
        labels = {label.strip() for part in grouped for label in part.split(",")}
        assert labels <= set().union(*(metrics[name] for name in named)), rule["alert"]
        shown = set(re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]))
        assert shown <= labels, rule["alert"]


def test_filling_a_stream_and_dead_letters_are_alerts(rules: list[dict[str, Any]]) -> None:
    watched = " ".join(rule["expr"] for rule in rules)
    for metric in ("lorafleet_stream_fill_ratio", "lorafleet_dead_letters", "lorafleet_outbox_waiting"):
        assert metric in watched
