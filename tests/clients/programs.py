"""The clients that are tried: script, environment, and how one is run."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A script. environment: the folder that `make` installs its packages into."""

    script: str
    environment: str = ".venv-clients"

    @property
    def name(self) -> str:
        return self.script.partition(".")[0]

    def run(self, environments: Path, **variables: str) -> dict[str, Any]:
        """What the script told. variables: see `tests/clients/told.py`. Raises AssertionError with its errors."""
        folder = environments / self.environment
        python = self.script.endswith(".py")
        program = str(folder / "bin" / "python") if python else "node"
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        # Nothing is to be fetched, told to anybody, or read from this machine's own settings.
        quiet = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "AI_SDK_TELEMETRY_DISABLED": "1"}
        done = subprocess.run(
            [program, str(HERE / self.script)],
            env={**keep, **quiet, "MODULES": str(folder / "package.json"), **variables},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{self.script}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


CLIENTS = (
    Client("openai_python.py"),
    Client("openai_node.mjs"),
    Client("litellm_client.py"),
    Client("langchain_client.py"),
    Client("pydantic_ai_client.py"),
    Client("instructor_client.py", ".venv-clients-instructor"),
    Client("ai_sdk.mjs"),
    Client("lm_eval_client.py"),
)
