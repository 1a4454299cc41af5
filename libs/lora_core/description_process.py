"""Builds a base model without weights, describes its layers: `python -m lora_core.description_process FOLDER DIGEST`.

The model is what `lora_core.model_class` finds for config.json, on torch's meta device: every module and every shape,
and no memory. Quantisation is left out, so that packed layers have the shapes that they compute with.
"""

import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_core.errors import UnsupportedBaseModel
from lora_core.layer_shapes import Description, Layer
from lora_core.layers import dimensions, is_adaptable
from lora_core.model_class import REPORTED, check_whole, class_of, config_of, shortened
from lora_core.model_files import declared

_REFUSED = 3


def build(folder: Path, digest: str) -> Description:
    """The description of the model in a folder. Raises UnsupportedBaseModel in one sentence."""
    model = _without_weights(folder)
    if not getattr(model.config, "quantization_config", None):
        _check_names(folder, model)
    return describe_model(model, digest)


def _check_names(folder: Path, model: Any) -> None:
    """Refuse files that lack weights by the names in their headers, under which transformers loads empty ones.

    Packed weights have names of their own, which the loader that unpacks them checks.
    """
    empty = {name: torch.empty(entry.shape, device="meta") for name, entry in declared(folder).items()}
    try:
        loaded, report = type(model).from_pretrained(
            None, config=model.config, state_dict=empty, device_map="meta", **REPORTED
        )
    except Exception as error:  # every model class checks in its own way
        raise UnsupportedBaseModel(
            f"transformers cannot load {folder.name} (model_type {model.config.model_type}): {shortened(error)}"
        ) from error
    check_whole(folder.name, loaded, report)


def describe_model(model: Any, digest: str = "") -> Description:
    """The description of a transformers causal language model, on any device."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    names = {id(module): name for name, module in modules.items()}
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    decoder = names.get(id(model.get_decoder()), "") if hasattr(model, "get_decoder") else ""
    layers: dict[str, Layer] = {}
    others: dict[str, str] = {}
    for name, module in modules.items():
        if module is embedding and isinstance(module, nn.Embedding) and is_adaptable(module):
            layers[name] = Layer(kind="embedding", shape=dimensions(module))
        elif isinstance(module, nn.Linear) and is_adaptable(module):
            inside = module is not head and name.startswith(f"{decoder}." if decoder else "")
            layers[name] = Layer(
                kind="head" if module is head else "linear",
                shape=dimensions(module),
                bias=module.bias is not None,
                decoder=inside and any(part.isdigit() for part in name.split(".")),
            )
        else:
            others |= _others(name, module)
    quantised = getattr(model.config, "quantization_config", None)
    method = quantised.get("quant_method") if isinstance(quantised, dict) else getattr(quantised, "quant_method", "")
    return Description(
        digest=digest,
        transformers=version("transformers"),
        model_type=model.config.model_type,
        architecture=type(model).__name__,
        quantisation=str(getattr(method, "value", method) or "unnamed") if quantised else "",
        layers=layers,
        others=others,
        tied=_tied(head, embedding, names),
        stacked=_stacked(model, others),
    )


def _without_weights(folder: Path) -> Any:
    config = config_of(folder)
    made: Any = class_of(config)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return made.from_config(config, dtype=torch.float32)
    except Exception as error:  # every model class checks in its own way
        raise UnsupportedBaseModel(
            f"transformers cannot build {folder.name} (model_type {config.model_type}): {shortened(error)}"
        ) from error


def _others(name: str, module: nn.Module) -> dict[str, str]:
    """What else holds matrices directly in this module, by full name."""
    found: dict[str, str] = {}
    kind = type(module).__name__
    for parameter, weights in module.named_parameters(recurse=False):
        if weights.dim() < 2:
            continue
        if isinstance(module, nn.Embedding):
            found[name] = f"an embedding that is no plain input embedding ({kind})"
        elif kind == "Conv1D":
            found[name] = "a Conv1D, whose weight is transposed"
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found[name] = "a convolution"
        elif "expert" in f"{name} {kind}".lower() and weights.dim() == 3:
            found[f"{name}.{parameter}"] = "stacked experts"
        elif "router" in kind.lower() or "gate" in kind.lower():
            found[name] = f"a router ({kind})"
        else:
            found[f"{name}.{parameter}" if parameter != "weight" else name] = f"weights of a {kind}"
    return found


def _tied(head: Any, embedding: Any, names: dict[int, str]) -> tuple[tuple[str, str], ...]:
    if head is None or embedding is None or getattr(head, "weight", None) is not getattr(embedding, "weight", ...):
        return ()
    return ((names[id(head)], names[id(embedding)]),)


def _stacked(model: Any, others: dict[str, str]) -> dict[str, str]:
    """From the rules by which transformers reads files whose experts are modules of their own."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    stacked = {name.rpartition(".")[2]: name for name, kind in others.items() if kind == "stacked experts"}
    found: dict[str, str] = {}
    for rule in get_model_conversion_mapping(model):
        for target in rule.target_patterns if stacked else ():
            leaf = target.rpartition(".")[2]
            if leaf not in stacked or "experts" not in target:
                continue
            for source in rule.source_patterns:
                inner = source.removesuffix(".weight").rpartition(".")[2]
                if inner.isidentifier():
                    found[inner] = f"experts.{leaf}"
    return found


def main(folder: str, digest: str) -> int:
    """Writes the description to standard output, or why there is none with status 3."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no description
    try:
        out.write(build(Path(folder), digest).model_dump_json())
    except UnsupportedBaseModel as refused:
        out.write(str(refused))
        return _REFUSED
    finally:
        out.flush()  # nothing else does: at exit Python flushes what sys.stdout is by then
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
