"""The frozen base model of a training, and the adapter put onto it."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig, PreTrainedModel

from lora_core.layer_shapes import LayerShapes
from lora_core.model_class import load_model
from services.trainer.training.configuration import Configuration
from services.trainer.training.targets import chosen, decoder_layers


def load(folder: Path, method: str) -> PreTrainedModel:
    """The base model in fp32, or in NF4 for qlora (https://arxiv.org/abs/2305.14314); its own parameters are frozen."""
    quantised = (
        BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        if method == "qlora"
        else None
    )
    model = load_model(folder, torch.float32, quantised)
    if quantised:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    return model


def adapter(configuration: Configuration, model: PreTrainedModel, layers: LayerShapes) -> LoraConfig:
    """A new adapter for this base model, whose linear modules `layers` are.

    rslora (https://arxiv.org/abs/2312.03732) scales by alpha / sqrt(rank), the others by alpha / rank; dora
    (https://arxiv.org/abs/2402.09353) learns magnitudes beside directions.
    """
    last = configuration.layers
    wanted = chosen(layers, configuration.target_modules, last)
    short = sorted({name.rpartition(".")[2] for name in wanted})
    everywhere = chosen(layers, configuration.target_modules)
    # PEFT takes a short name for every module that ends with it: also of an image tower. Full names are exact.
    ambiguous = any(name.rpartition(".")[2] in short and name not in everywhere for name, _ in model.named_modules())
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=configuration.rank,
        lora_alpha=configuration.alpha,  # type: ignore[arg-type]  # PEFT takes and keeps a float
        lora_dropout=configuration.dropout,
        target_modules=list(wanted) if ambiguous else short,
        use_dora=configuration.method == "dora",
        use_rslora=configuration.method == "rslora",
        layers_to_transform=decoder_layers(layers)[-last:] if last and not ambiguous else None,
    )


def with_adapter_of(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with the trained adapter of a PEFT folder, to be trained further."""
    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
