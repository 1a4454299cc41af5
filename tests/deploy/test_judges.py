"""The component that gives a deployed evaluator its language models as judges, on top of an overlay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.evaluator.judging.settings import JudgeSettings

JUDGES = {"gpt": {"url": "https://api.openai.com/v1", "model": "gpt-4.1", "key_file": "/run/judge-keys/gpt"}}


@pytest.fixture(scope="module")
def built(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The production overlay with the component, as manifests."""
    return str(tools.with_component("judges", tmp_path_factory.mktemp("k8s")))


def test_every_resource_is_valid_for_kubernetes(built: str, tools: Any, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(built)
    done = tools.run(tools.program("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_of_the_secret_is_the_file_that_the_judges_setting_names(built: str) -> None:
    [deployment] = [
        one
        for one in yaml.safe_load_all(built)
        if one and (one["kind"], one["metadata"]["name"]) == ("Deployment", "evaluator")
    ]
    pod = deployment["spec"]["template"]["spec"]
    [evaluator] = pod["containers"]
    sources = {one["name"]: one.get("valueFrom", {}).get("configMapKeyRef", {}).get("key") for one in evaluator["env"]}
    assert {name: sources[name] for name in ("LORAFLEET_JUDGES", "LORAFLEET_JUDGE")} == {
        "LORAFLEET_JUDGES": "LORAFLEET_JUDGES",
        "LORAFLEET_JUDGE": "LORAFLEET_JUDGE",
    }
    [volume] = [one for one in pod["volumes"] if one["name"] == "judge-keys"]
    [mount] = [one for one in evaluator["volumeMounts"] if one["name"] == "judge-keys"]
    assert (volume["secret"]["secretName"], mount["readOnly"]) == ("lorafleet-judge-keys", True)
    judge = JudgeSettings.model_validate(json.loads(json.dumps(JUDGES))["gpt"])
    assert str(judge.key_file) == f"{mount['mountPath']}/gpt"
