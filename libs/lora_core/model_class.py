"""The class of transformers that computes a base model: a causal language model, or one of images and text."""

from functools import partial
from importlib.metadata import version
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
from transformers.utils.quantization_config import QuantizationConfigMixin

from lora_core.errors import UnsupportedBaseModel


def config_of(folder: Path | str) -> PreTrainedConfig:
    """The configuration in a base model's folder.

    Raises:
        UnsupportedBaseModel: transformers does not know its kind.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # every configuration class checks in its own way
        raise UnsupportedBaseModel(
            f"config.json of {Path(folder).name} is none that transformers {version('transformers')} reads "
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
        UnsupportedBaseModel: transformers does not know its kind, or it writes no text.
    """
    config = config_of(folder)
    loader = class_of(config)
    options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "quantization_config": quantisation}
    loaded = partial(loader.from_pretrained, folder, **options)
    try:
        model: PreTrainedModel = loaded()
    except (ImportError, ValueError):
        if config._attn_implementation is None:
            raise
        config._attn_implementation = "eager"
        model = loaded(config=config)
    return model


def shortened(error: Exception) -> str:
    """The error's message in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
