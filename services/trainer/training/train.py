"""The training subprocess: `python -m services.trainer.training.train SPEC.json`, progress as JSON lines on stdout.

It knows files, not the bus, the database or the object store: the supervisor in the service moves things in and out.
"""

import ctypes
import json
import os
import platform
import signal
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import BaseModel

from services.trainer.data import records
from services.trainer.training.encoding import UnfitTokenizer, encode_all, prompt_ids
from services.trainer.training.progress import Began, Finished, ProbeResult, Refused, TrainingSpec

if TYPE_CHECKING:
    import torch

_PR_SET_PDEATHSIG = 1
_TOO_LONG_ALLOWED = 0.1  # part of the samples that may be left out before the job is refused
_PROBE_TOP = 8


class CannotTrain(Exception):
    """This data and this model do not fit; trying again changes nothing."""


def main(spec_file: str) -> int:
    """Train what the spec says. 0 when finished or refused with a reason, another status for a crash."""
    spec = TrainingSpec.model_validate_json(Path(spec_file).read_bytes())
    _die_with(spec.supervisor)
    out = _claim_stdout()

    def tell(message: BaseModel) -> None:
        out.write(message.model_dump_json() + "\n")
        out.flush()

    try:
        _train(spec, tell)
    except CannotTrain as refusal:
        tell(Refused(reason=str(refusal)))
    return 0


def _die_with(supervisor: int) -> None:
    """Never outlive the supervisor: a second worker may take up the job and must not find this one still at it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the line above
        os._exit(1)

    def watch() -> None:
        # Standard input is a pipe nobody writes to; it ends when the supervisor does, on every system.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _claim_stdout() -> IO[str]:
    """Standard output for our lines alone; whatever libraries print goes to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _train(spec: TrainingSpec, tell: Any) -> None:
    # Imported here: they take seconds, and the guards above must stand before.
    import torch
    from transformers import AutoTokenizer

    from services.trainer.training import sft

    torch.set_num_threads(spec.threads)
    configuration = spec.configuration
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    pairs = _pairs(spec.dataset)
    try:
        data = encode_all(tokenizer, pairs, configuration.max_length)
    except UnfitTokenizer as error:
        raise CannotTrain(f"base_model: {error}") from error
    if data.too_long > _TOO_LONG_ALLOWED * len(pairs):
        raise CannotTrain(
            f"hyperparameters.max_length: {data.too_long} of {len(pairs)} samples are longer than "
            f"{configuration.max_length} tokens; the longest has {data.longest}"
        )

    trainer = sft.prepare(
        sft.load_base(spec.base_model, configuration.method),
        tokenizer,
        data,
        configuration,
        spec.work,
        stepped=tell,
        saved=tell,
    )
    resumed = _resumed_step(spec.resume_from)
    total = sft.total_steps(configuration, len(data.samples))
    tell(
        Began(
            total_steps=total,
            resumed_step=resumed,
            samples=len(data.samples),
            too_long=data.too_long,
            longest=data.longest,
            tokens=data.tokens,
            trained_tokens=data.trained_tokens,
        )
    )
    if spec.resume_from and resumed >= total:
        # Asked to resume behind its last step, transformers would train one more.
        sft.load_weights(trainer, spec.resume_from)
    else:
        try:
            trainer.train(resume_from_checkpoint=str(spec.resume_from) if spec.resume_from else None)
        except sft.Diverged as error:
            raise CannotTrain(str(error)) from error
    model: Any = trainer.model
    model.eval()
    probe = _probe(model, prompt_ids(tokenizer, spec.probe_prompt), spec.probe_prompt)
    weights, config = _write_peft(model, spec.work / "peft", spec.base_model_name)
    artifact, digest = _write_artifact(spec.work / "peft", spec.work / "artifact.arrow")
    tell(
        Finished(
            steps=total,
            weights=weights,
            config=config,
            artifact=artifact,
            artifact_digest=digest,
            probe=probe,
            environment=_environment(torch.get_num_threads()),
        )
    )


def _pairs(dataset: Path) -> list[tuple[str, str]]:
    if dataset.suffix == ".parquet":
        return [(record.prompt_text, record.completions[0]) for record in records.read(dataset)]
    lines = (json.loads(line) for line in dataset.read_bytes().splitlines() if line.strip())
    return [(line["prompt"], line["completion"]) for line in lines]


def _resumed_step(folder: Path | None) -> int:
    return int(json.loads((folder / "trainer_state.json").read_bytes())["global_step"]) if folder else 0


def _probe(model: Any, ids: list[int], prompt: str) -> ProbeResult:
    import torch

    with torch.inference_mode():
        adapted = _last_logits(model, ids)
        with model.disable_adapter():
            base = _last_logits(model, ids)
    top = adapted.topk(min(_PROBE_TOP, len(adapted)))
    return ProbeResult(
        prompt=prompt,
        top_ids=tuple(top.indices.tolist()),
        top_logits=tuple(top.values.tolist()),
        base_logits=tuple(base[top.indices].tolist()),
        max_delta=float((adapted - base).abs().max()),
    )


def _last_logits(model: Any, ids: list[int]) -> "torch.Tensor":
    import torch

    logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()


def _write_peft(model: Any, folder: Path, base_model_name: str) -> tuple[Path, Path]:
    """adapter_model.safetensors and adapter_config.json of the trained adapter alone, byte-stable."""
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    described = json.loads(config.read_bytes())
    # PEFT writes a set in the order of its hashes, which differs from process to process.
    described["target_modules"] = sorted(described["target_modules"])
    # It also writes the folder the weights were read from, which is this machine's business; the name travels.
    described["base_model_name_or_path"] = base_model_name
    config.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    return weights, config


def _write_artifact(peft: Path, path: Path) -> tuple[Path, str]:
    from lora_core import LoRAFormat
    from lora_core.interop import from_peft

    return path, LoRAFormat.save(from_peft(peft), path)


def _environment(threads: int) -> dict[str, str]:
    libraries = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": str(threads),
        **{name: version(name) for name in libraries},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
