"""What a sentence-transformers folder says of its model, read without the library, whose import takes 330 MB."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open

MODULES = (["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"])


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a BERT model. `longest`: tokens that it reads of a text, special ones included."""

    dimension: int
    layers: int
    heads: int
    epsilon: float
    longest: int

    @property
    def tensors(self) -> Iterator[str]:
        """Names of the tensors that a vector is made with."""
        yield from (f"embeddings.{one}_embeddings.weight" for one in ("word", "position", "token_type"))
        parts = [f"attention.self.{one}" for one in ("query", "key", "value")]
        parts += ["attention.output.dense", "attention.output.LayerNorm"]
        parts += ["intermediate.dense", "output.dense", "output.LayerNorm"]
        names = ["embeddings.LayerNorm"]
        names += [f"encoder.layer.{number}.{part}" for number in range(self.layers) for part in parts]
        yield from (f"{name}.{kind}" for name in names for kind in ("weight", "bias"))


@dataclass(frozen=True, slots=True)
class BertFolder:
    """A plain BERT with the mean over its last states. `prefix`: of the tensors' names in the file `weights`."""

    shape: Shape
    weights: Path
    prefix: str
    tokenizer: str

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None for a folder whose model is built otherwise, or whose files are not where they are usually."""
        try:
            modules = _json(folder / "modules.json")
            here = folder / modules[0]["path"]
            config, reads = _json(here / "config.json"), _json(here / "sentence_bert_config.json")
            pooling = _json(folder / modules[1]["path"] / "config.json")
            tokenizer, options = (here / "tokenizer.json").read_text(), _json(here / "tokenizer_config.json")
            if [one["type"].rpartition(".")[2] for one in modules] not in MODULES:
                return None
            if not (_is_bert(config) and _is_mean(pooling)) or _has_prompt(folder):
                return None
            lower = bool((json.loads(tokenizer)["normalizer"] or {}).get("lowercase"))
            if lower != bool(options.get("do_lower_case", True)) or reads.get("do_lower_case"):
                return None
            positions = int(config["max_position_embeddings"])
            shape = Shape(
                dimension=int(config["hidden_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                epsilon=float(config["layer_norm_eps"]),
                longest=int(reads.get("max_seq_length") or min(positions, options.get("model_max_length", positions))),
            )
            with safe_open(here / "model.safetensors", framework="np") as file:
                names = set(file.keys())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError):
            return None  # the library that opens it instead reports what is wrong
        prefix = next((one for one in ("", "bert.") if names.issuperset(one + name for name in shape.tensors)), None)
        if prefix is None or not 2 < shape.longest <= positions:
            return None
        return cls(shape, here / "model.safetensors", prefix, tokenizer)


def _is_bert(config: dict[str, Any]) -> bool:
    return (
        config["architectures"] == ["BertModel"]
        and config["model_type"] == "bert"
        and config["hidden_act"] == "gelu"
        and not config.get("is_decoder")
        and config.get("position_embedding_type", "absolute") == "absolute"
    )


def _is_mean(pooling: dict[str, Any]) -> bool:
    modes = [name for name, given in pooling.items() if name.startswith("pooling_mode_") and given]
    return modes == ["pooling_mode_mean_tokens"] or pooling.get("pooling_mode") == "mean"


def _has_prompt(folder: Path) -> bool:
    path = folder / "config_sentence_transformers.json"
    return path.is_file() and bool(_json(path).get("default_prompt_name"))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
