"""Grafana's dashboards read only metrics that the code keeps, by labels that they have, and Prometheus reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import labels, metrics_of, named

NAMES = ("fleet", "serving", "training", "bus")


@pytest.fixture(scope="module")
def dashboards(tools: Any) -> dict[str, dict[str, Any]]:
    folder = tools.root / "k8s" / "components" / "monitoring"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in NAMES}


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_reads_metrics_that_the_code_keeps_by_labels_that_they_have(
    dashboards: dict[str, Any], tools: Any, name: str
) -> None:
    metrics = metrics_of(tools.root)
    for expression in expressions(dashboards[name]):
        read = named(expression)
        assert read, expression
        assert read <= metrics.keys(), expression
        assert labels(expression) <= set().union(*(metrics[one] for one in read)), expression


def test_the_objectives_of_serving_are_on_its_page(dashboards: dict[str, Any]) -> None:
    read = set().union(*map(named, expressions(dashboards["serving"])))
    for duration in ("first_token_seconds", "token_gap_seconds", "queue_seconds", "adapter_load_seconds"):
        assert f"lorafleet_inference_{duration}" in read


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboards: dict[str, Any], name: str) -> None:
    panels = dashboards[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_reads_every_expression_of_dashboards_and_alerts(
    dashboards: dict[str, Any], tools: Any, tmp_path: Path
) -> None:
    found = [one.replace("$__rate_interval", "5m") for name in NAMES for one in expressions(dashboards[name])]
    rules = [{"record": f"panel:number_{number}", "expr": one} for number, one in enumerate(found)]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    for path in (panels, tools.root / "k8s" / "alerts.yaml"):
        checked = subprocess.run(["promtool", "check", "rules", path], check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_component_makes_one_config_map_that_grafanas_sidecar_finds(tools: Any, tmp_path: Path) -> None:
    built = tools.with_component("monitoring", tmp_path)
    [found] = [one for one in yaml.safe_load_all(built) if one and one["metadata"]["name"] == "lorafleet-dashboards"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {Path(name).stem for name in found["data"]} == set(NAMES)
