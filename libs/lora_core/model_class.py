"""The class of transformers that computes a base model: a causal language model, or one of images and text."""

from functools import partial
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from lora_core.errors import UnsupportedBaseModel


def config_of(folder: Path | str) -> PreTrainedConfig:
    """The configuration in a base model's folder.

    Raises:
        UnsupportedBaseModel: transformers does not know its kind.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError) as error:
        known = f"config.json in {folder} is of no model that transformers knows"
        raise UnsupportedBaseModel(f"{known}: {_first(error)}") from error
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
    raise UnsupportedBaseModel(
        f"model_type is {config.model_type!r}, expected a causal language model, or a model of images and text, whose"
        " text part is served"
    )


def load_model(folder: Path | str, dtype: torch.dtype) -> PreTrainedModel:
    """The model with the attention that its class chooses, eager where its configuration names one that is not here.

    Raises:
        UnsupportedBaseModel: transformers does not know its kind, or it writes no text.
    """
    config = config_of(folder)
    loader = class_of(config)
    loaded = partial(loader.from_pretrained, folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    try:
        model: PreTrainedModel = loaded()
    except (ImportError, ValueError):
        if config._attn_implementation is None:
            raise
        config._attn_implementation = "eager"
        model = loaded(config=config)
    return model


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
