"""The class of transformers that computes a base model: a causal language model, or one of images and text."""

from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from lora_core.errors import UnsupportedBaseModel
from lora_core.model_files import declared


def config_of(folder: Path | str) -> PreTrainedConfig:
    """The configuration in a base model's folder.

    Raises:
        UnsupportedBaseModel: transformers does not know its kind.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # every configuration class checks in its own way
        raise UnsupportedBaseModel(
            f"config.json of {Path(folder).name} is not one that transformers {version('transformers')} reads "
            f"({shortened(error)}); models with code of their own are not loaded"
        ) from error
    return config


def class_of(config: PreTrainedConfig) -> type[AutoModelForCausalLM | AutoModelForImageTextToText]:
    """What loads a model of this configuration.

    A model of images and text (Qwen2.5-VL, LLaVA, Mistral 3) is loaded whole and computes text alone.

    Raises:
        UnsupportedBaseModel: it writes no text.
    """
    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    what = ", ".join(config.architectures or ()) or "config.json"
    raise UnsupportedBaseModel(
        f"transformers loads no language model from {what} (model_type {config.model_type!r}): expected a causal "
        "language model, or a model of images and text, whose text part is used"
    )


def load_model(
    folder: Path | str, dtype: torch.dtype, quantisation: QuantizationConfigMixin | None = None
) -> PreTrainedModel:
    """The model with the attention that its class chooses, eager where its configuration names one that is not here.

    quantisation: how its weights are packed as they are loaded, where they are.

    Raises:
        UnsupportedBaseModel: transformers does not know its kind, it writes no text, or its files lack weights.
        AdapterNotFound, CorruptAdapter: see `lora_core.description.layout_digest`.
    """
    config = config_of(folder)
    loader = class_of(config)
    declared(Path(folder))  # one sentence where transformers raises a traceback
    options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "quantization_config": quantisation}
    loaded: Any = partial(loader.from_pretrained, folder, **options, **REPORTED)
    try:
        model, report = loaded()
    except (ImportError, ValueError):
        if config._attn_implementation is None:
            raise
        config._attn_implementation = "eager"
        model, report = loaded(config=config)
    check_whole(Path(folder).name, model, report)
    whole: PreTrainedModel = model
    return whole


REPORTED: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Options of from_pretrained with which it returns what `check_whole` reads beside the model."""


def check_whole(name: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Refuse a model whose files lack parameters: transformers fills these with new random numbers at each load.

    A weight that is tied to another is there with that one. name: the folder's. report: from_pretrained's.

    Raises:
        UnsupportedBaseModel: parameters are missing, or have another shape than config.json gives them.
    """
    other = sorted((key, found, expected) for key, found, expected in report["mismatched_keys"])
    if other:
        key, found, expected = other[0]
        raise UnsupportedBaseModel(
            f"{name}: {key} has the shape {list(found)}, expected {list(expected)} as in config.json"
            + (f", and {len(other) - 1} more weights differ" if other[1:] else "")
        )
    parameters = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    missing = sorted(parameters.intersection(report["missing_keys"]))
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise UnsupportedBaseModel(
            f"{name} lacks weights of {type(model).__name__}: {shown}; expected every weight of a language model"
        )


def check_tokens(ids: Iterable[int], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse token ids for which the input embedding has no row, as after tokens were added and it was not resized.

    A tokenizer may have more tokens than rows where they are not used: that of Gemma 3 has one for images, of which its
    text models know nothing.

    Raises:
        UnsupportedBaseModel: with both sizes, and the first such token.
    """
    embedding: Any = model.get_input_embeddings()
    rows = int(getattr(embedding, "num_embeddings", 0))
    beyond = min((token for token in ids if token >= rows), default=None) if rows else None
    if beyond is not None:
        raise UnsupportedBaseModel(
            f"the tokenizer has {len(tokenizer)} tokens, but the model's embedding has {rows} rows: there is none for "
            f"token {beyond} ({tokenizer.convert_ids_to_tokens(beyond)!r:.100}); expected the model after "
            "resize_token_embeddings, or the tokenizer that it was trained with"
        )


def shortened(error: Exception) -> str:
    """The error's message in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
