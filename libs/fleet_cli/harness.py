"""Tasks of lm-evaluation-harness on a version, over OpenAI endpoints: run its program, read what it measured.

Source: the harness' `lm_eval run` and its output (github.com/EleutherAI/lm-evaluation-harness, 0.4.10 and later).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_statistics.intervals import SCALE, mean_score
from lorafleet.errors import BadInput, FleetError

_TASK = re.compile(r"(?m)^(?:task|group)\s*:\s*[\"']?([\w.-]+)")
_LIKELIHOODS = re.compile(r"(?m)^output_type\s*:\s*[\"']?(multiple_choice|loglikelihood(?:_rolling)?)\b")
_SAMPLES = re.compile(r"samples_(.+)_\d{4}-\d{2}-\d{2}T[\d.:-]+\.jsonl")
_NAME = re.compile(r"[^A-Za-z0-9_.:-]")
_LONGEST_NAME = 63
_PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Of this command's environment; the program gets a home of its own and no credential but the one for inference."""


@dataclass(frozen=True)
class Harness:
    """How the program is run.

    With a `tokenizer` (a folder) tasks may ask for likelihoods, over /v1/completions; without, only for texts, over
    /v1/chat/completions.
    """

    program: str = "lm_eval"
    limit: int | None = None
    """Documents of a task; None is all."""
    seconds: float = 3600.0
    concurrency: int = 4
    tokenizer: str = ""


@dataclass(frozen=True)
class HarnessMetric:
    """A metric of a task: its mean over `samples` documents, with its interval where one can be given."""

    name: str
    value: float
    ci_low: float | None
    ci_high: float | None
    samples: int

    @property
    def body(self) -> dict[str, object]:
        """As the registry takes it."""
        interval = {} if self.ci_low is None else {"ci_low": self.ci_low, "ci_high": self.ci_high}
        return {"value": self.value, **interval, "samples": self.samples}


def run_tasks(harness: Harness, model: str, tasks: Path, inference_url: str, token: str) -> list[HarnessMetric]:
    """Run the task of a YAML file on the model, and read its metrics.

    Paths in the file are relative to its folder; nothing is fetched from a hub. Raises BadInput for a file without a
    task, a program that is not there or a task of likelihoods without a tokenizer, FleetError where the program fails
    or takes too long.
    """
    program = shutil.which(harness.program)
    if program is None:
        raise BadInput(
            "--program", f"{harness.program!r} is not there; install lm-eval[api] in an environment of its own"
        )
    try:
        written = tasks.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("--tasks", f"{tasks} cannot be read: {error}") from error
    named = _TASK.search(written)
    if named is None:
        raise BadInput(
            "--tasks", f"{tasks} names no task; it is a task of lm-evaluation-harness, with a line `task: NAME`"
        )
    measured = _LIKELIHOODS.search(written)
    if measured and not harness.tokenizer:
        raise BadInput(
            "--tokenizer", f"task {named[1]} measures likelihoods ({measured[1]}); give the folder of the base model"
        )
    with tempfile.TemporaryDirectory(prefix="lorafleet-harness-") as folder:
        out = Path(folder) / "out"
        command = [program, "run", *_arguments(harness, model, inference_url), "--tasks", named[1]]
        command += ["--include_path", str(tasks.parent.resolve()), "--output_path", str(out), "--log_samples"]
        _run(command, tasks.parent, Path(folder), token, harness.seconds)
        found = list(_metrics(out))
    if not found:
        raise FleetError(f"lm_eval measured nothing for task {named[1]}")
    return found


def _arguments(harness: Harness, model: str, inference_url: str) -> list[str]:
    base = inference_url.rstrip("/") + "/v1"
    given = {"model": model, "num_concurrent": str(harness.concurrency), "max_retries": "3"}
    if harness.tokenizer:
        kind = "local-completions"
        given |= {"base_url": f"{base}/completions", "tokenizer_backend": "huggingface", "tokenizer": harness.tokenizer}
    else:
        kind = "local-chat-completions"
        given |= {"base_url": f"{base}/chat/completions", "tokenizer_backend": "None", "tokenized_requests": "False"}
    arguments = ["--model", kind, "--model_args", ",".join(f"{name}={value}" for name, value in given.items())]
    arguments += [] if harness.tokenizer else ["--apply_chat_template"]
    return arguments + ([] if harness.limit is None else ["--limit", str(harness.limit)])


def _run(command: list[str], tasks: Path, folder: Path, token: str, seconds: float) -> None:
    """Until it ends; its whole process group is killed after `seconds`, and when this command is interrupted."""
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    environment |= {"HOME": str(folder), "HF_HOME": str(folder / "hub"), "TMPDIR": str(folder)}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": token}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tasks,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise FleetError(
                f"lm_eval did not end within {seconds:g} s; give it more (--minutes), or fewer documents"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status != 0:
        lines = (folder / "log").read_text(errors="replace").replace(token, "***").strip().splitlines()
        raise FleetError(
            f"lm_eval ended with status {status}: {lines[-1] if lines else 'no output'}", "\n".join(lines[-30:])
        )


def _metrics(out: Path) -> Iterator[HarnessMetric]:
    """Of every results file below the folder, by task and metric."""
    values = _by_document(out)
    for file in sorted(out.rglob("results_*.json")):
        for task, numbers in json.loads(file.read_text())["results"].items():
            for key, value in numbers.items():
                metric, given, kind = key.partition(",")
                if not given or metric.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                of_it = values.get((task, kind, metric), [])
                low, high = _interval(value, numbers.get(f"{metric}_stderr,{kind}"), of_it)
                samples = len(of_it) or int(numbers.get("sample_len") or 1)
                yield HarnessMetric(_name(task, metric, kind), float(value), low, high, samples)


def _name(task: str, metric: str, kind: str) -> str:
    """`lm-eval.TASK.METRIC`, and the name of the harness' filter where there is one."""
    name = f"lm-eval.{task}.{metric}" + ("" if kind == "none" else f":{kind}")
    return _NAME.sub("-", name)[:_LONGEST_NAME]


def _by_document(out: Path) -> Mapping[tuple[str, str, str], list[float]]:
    """(task, filter, metric) → the value of each document."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for file in sorted(out.rglob("samples_*.jsonl")):
        named = _SAMPLES.fullmatch(file.name)
        for line in file.read_text().splitlines() if named else ():
            row = json.loads(line)
            for metric in row.get("metrics", ()):
                if isinstance(row.get(metric), int | float):
                    found.setdefault((named[1] if named else "", str(row.get("filter")), metric), []).append(
                        float(row[metric])
                    )
    return found


def _interval(value: float, error: object, values: list[float]) -> tuple[float | None, float | None]:
    """That of a mean of values from 0 to 1, as scores have it; of another metric two standard errors to each side."""
    if values and all(0 <= one <= 1 for one in values) and abs(sum(values) / len(values) - value) < 1e-6:
        mean = mean_score([SCALE * one for one in values])
        return min(value, mean.low / SCALE), max(value, mean.high / SCALE)
    if isinstance(error, int | float):
        return value - 1.96 * error, value + 1.96 * error
    return None, None
