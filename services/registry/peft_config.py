"""What a PEFT folder's adapter_config.json holds beside the adapter's matrices: how it was trained, and on what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fleet_events.strict_json import read_json
from fleet_events.v1 import Method
from services.registry.checkpoint import CONFIG, CannotServe

# A folder of the Hugging Face cache names its model, see the guide "Understand caching" of huggingface_hub.
_CACHED = re.compile(r"(?:^|[/\\])models--([^/\\]+)[/\\]snapshots[/\\]")
_LOCAL = re.compile(r"[/~.\\]|[A-Za-z]:[\\/]|file:|s3:|gs:")
# How copies of a model with packed weights are called: the same model as far as an adapter goes.
_PACKED = re.compile(
    r"[-_.](?:unsloth|bnb|nf4|gptq|awq|aqlm|hqq|exl2|mlx|gguf|quantized|quantised|fp8|mxfp4|fp16|bf16|int[248]"
    r"|[248][-_]?bits?|w\d+a\d+)$"
)


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """`method` as the folder has it; `base_model`: its base_model_name_or_path, empty for a place on a disk.

    A place in the Hugging Face cache is read as the model's name: `…/models--ORG--NAME/snapshots/…` as ORG/NAME.
    """

    method: Method
    base_model: str = ""

    @classmethod
    def read(cls, folder: Path) -> PeftConfig:
        """Raises CannotServe where the file is no JSON object. What is in it otherwise is the inspection's to judge."""
        try:
            given = read_json((folder / CONFIG).read_bytes())
        except ValueError as error:
            raise CannotServe(CONFIG, f"{CONFIG}: not JSON: {error}") from error
        if not isinstance(given, dict):
            raise CannotServe(CONFIG, f"{CONFIG}: not a JSON object")
        method = Method.DORA if given.get("use_dora") else Method.RSLORA if given.get("use_rslora") else Method.LORA
        name = given.get("base_model_name_or_path")
        return cls(method, _named(name)[:200] if isinstance(name, str) else "")

    def settle(self, requested: Method | None) -> Method:
        """The method to register under: the folder's, or the requested one where that is no other.

        qlora leaves a folder like lora's. Raises CannotServe in field method.
        """
        same = {Method.LORA: {Method.LORA, Method.QLORA}}.get(self.method, {self.method})
        if requested is not None and requested not in same:
            raise CannotServe(
                "method", f"method {requested} was sent, but {CONFIG} has {self.method}: send that or none"
            )
        return requested or self.method

    def is_of(self, name: str) -> bool:
        """Whether `base_model` and this are names of one model: by any publisher, packed or not."""
        return not self.base_model or _bare(self.base_model) == _bare(name)


def _named(path: str) -> str:
    if cached := _CACHED.search(path):
        return cached[1].replace("--", "/", 1)
    return "" if _LOCAL.match(path) else path


def _bare(name: str) -> str:
    bare = name.rstrip("/").rpartition("/")[2].lower()
    while (shorter := _PACKED.sub("", bare)) != bare:
        bare = shorter
    return bare
