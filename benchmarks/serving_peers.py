"""What `benchmarks.serving` is held against: PEFT and transformers in this process, and other servers.

Other servers take part where their program is named: `LORAFLEET_VLLM_PYTHON`, an interpreter that has vLLM, and
`LORAFLEET_LLAMA_SERVER`, llama.cpp's server.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fleet_cli.stack.ports import choose
from lora_core import base_model

Job = tuple[str | None, str]
"""The adapter's name, None for the base model, and the prompt."""


class InProcess:
    """The base model with PEFT adapters under their names: static batches, as a script of one's own would make them."""

    def __init__(self, folder: Path, adapters: Mapping[str, Path], new_tokens: int) -> None:
        model, self._tokenizer = base_model.load(folder)
        self._plain: PreTrainedModel = model
        self._new_tokens = new_tokens
        self._peft: Any = None
        for name, path in adapters.items():
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(base_model.load(folder)[0], str(path), adapter_name=name).eval()
            else:
                self._peft.load_adapter(str(path), name)

    def plain(self, jobs: Sequence[Job], rows: int) -> float:
        """transformers `generate` in batches of so many rows. Returns tokens a second."""
        begun = time.perf_counter()
        made = sum(
            self._generate(self._plain, [prompt for _, prompt in jobs[first : first + rows]])
            for first in range(0, len(jobs), rows)
        )
        return made / (time.perf_counter() - begun)

    def adapter_names(self, jobs: Sequence[Job], rows: int) -> float:
        """Mixed batches of so many rows: PEFT's `adapter_names`."""
        begun, made = time.perf_counter(), 0
        for first in range(0, len(jobs), rows):
            some = jobs[first : first + rows]
            names = [name or "__base__" for name, _ in some]
            made += self._generate(self._peft, [prompt for _, prompt in some], adapter_names=names)
        return made / (time.perf_counter() - begun)

    def switching(self, jobs: Sequence[Job], rows: int) -> float:
        """The requests of one adapter after those of another: `set_adapter`, then batches of so many rows."""
        begun, made = time.perf_counter(), 0
        for name in dict.fromkeys(name for name, _ in jobs):
            own = [prompt for other, prompt in jobs if other == name]
            self._peft.set_adapter(name)
            made += sum(self._generate(self._peft, own[first : first + rows]) for first in range(0, len(own), rows))
        return made / (time.perf_counter() - begun)

    def _generate(self, model: Any, prompts: list[str], **extra: object) -> int:
        tokenizer: PreTrainedTokenizerBase = self._tokenizer
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        ids = tokenizer(prompts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            out = model.generate(
                **ids,
                max_new_tokens=self._new_tokens,
                min_new_tokens=self._new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                **extra,
            )
        return (int(out.shape[1]) - int(ids["input_ids"].shape[1])) * len(prompts)


@contextmanager
def vllm(folder: Path, adapters: Mapping[str, Path], dtype: str) -> Iterator[str | None]:
    """vLLM on the processor with these adapters; gives its URL, or None where no vLLM is named."""
    python = os.environ.get("LORAFLEET_VLLM_PYTHON")
    if not python:
        yield None
        return
    port = choose(("vllm",), {})["vllm"]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--dtype", dtype, "--enforce-eager", "--enable-lora", "--max-lora-rank", "16", "--max-loras", "8"]
    command += ["--max-model-len", "1024", "--served-model-name", "base", "--lora-modules"]
    command += [f"{name}={path}" for name, path in adapters.items()]
    own = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "WARNING"}
    with _server(command, f"http://127.0.0.1:{port}", own) as url:
        yield url


@contextmanager
def llama_server(model: str) -> Iterator[str | None]:
    """llama.cpp's server on a GGUF file, for scale; gives its URL, or None where no program is named."""
    program = os.environ.get("LORAFLEET_LLAMA_SERVER")
    if not program or not model:
        yield None
        return
    port = choose(("llama",), {})["llama"]
    command = [program, "--model", model, "--port", str(port), "--parallel", "8", "--ctx-size", "8192"]
    with _server(command, f"http://127.0.0.1:{port}", {}) as url:
        yield url


@contextmanager
def _server(command: Sequence[str], url: str, environment: Mapping[str, str]) -> Iterator[str]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            deadline = time.monotonic() + 300
            while not _healthy(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {log.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
