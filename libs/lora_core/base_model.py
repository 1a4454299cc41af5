"""A base model folder: its revision, the layers that can carry LoRA, and loading it. Only `load` needs torch."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_core.chat_template import ChatTemplate
from lora_core.description import describe
from lora_core.device import Weights, find_device, prepare
from lora_core.layer_shapes import LayerShapes
from lora_core.model_files import no_model

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER_FILES = {
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}
LOOKUPS = {"embed_tokens", "wte", "word_embeddings", "embed_in", "embeddings"}
"""Names of input embeddings in the files and models of transformers."""


def revision(folder: Path | str) -> str:
    """The base model revision: sha256 over the sorted `name sha256` lines of config, weights and tokenizer files.

    The same model has the same revision on every machine; one changed weight or token changes it.
    Raises AdapterNotFound if the folder is no model.
    """
    folder = Path(folder)
    files = sorted(_revision_files(folder))
    if not any(file.suffix == ".safetensors" for file in files) or folder / "config.json" not in files:
        raise no_model(folder)
    lines = (f"{file.name} {_file_sha256(file, *_identity(file))}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _revision_files(folder: Path) -> list[Path]:
    named = [folder / name for name in ("config.json", *_TOKENIZER_FILES)]
    return [file for file in named if file.is_file()] + list(folder.glob("*.safetensors"))


def _identity(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _file_sha256(file: Path, _inode: int, _size: int, _mtime: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def target_shapes(folder: Path | str) -> LayerShapes:
    """Module name → (out, in) of every layer that can carry LoRA, as the loaded model names them.

    An embedding's `in` is its vocabulary; an output head that shares the embedding's weight is there too. Raises as
    `lora_core.description.describe` does.
    """
    return _shapes(folder, "linear", "embedding", "head")


def linear_shapes(folder: Path | str) -> LayerShapes:
    """As `target_shapes`, of the linear layers inside the network alone: what adapters usually target."""
    return _shapes(folder, "linear")


def _shapes(folder: Path | str, *kinds: str) -> LayerShapes:
    description = describe(folder)
    return LayerShapes(description.named(kinds), description, Path(folder).resolve())


SLOT_RANK = 64
"""Largest rank that inference's slots hold unless LORAFLEET_MAX_RANK sets another. What is trained and registered
must be served, so trainer and registry refuse a larger one."""


def load(
    folder: Path | str, weights: Weights = "float32", device: "str | torch.device" = "cpu"
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model in evaluation mode on a device, and its tokenizer; never touches the network.

    Attention is computed as the model's class chooses. On a GPU it sets torch up for serving, see
    `lora_core.device.prepare`.

    Raises:
        DeviceUnavailable: see `lora_core.device.find_device`.
        UnsupportedBaseModel: see `lora_core.model_class.load_model`, or the embedding has no row for a token of
            every talk.
        AdapterNotFound, CorruptAdapter: see `lora_core.description.layout_digest`.
    """
    import torch
    from transformers import AutoTokenizer

    from lora_core.model_class import check_tokens, load_model

    place = find_device(str(device), weights)
    prepare(place)
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(weights, torch.float32)
    model = load_model(folder, dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    check_tokens(_talk_tokens(tokenizer), model, tokenizer)
    model.requires_grad_(False)
    model.train(False)
    placed: Any = model
    placed.to(place)
    if weights == "int8":
        from lora_core.int8 import SAMPLE, to_int8

        to_int8(model, tokenizer(SAMPLE)["input_ids"])
    return model, tokenizer


def end_tokens(generation: "GenerationConfig | None", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The tokens that end an answer: the generation settings', the tokenizer's, and the chat template's end of turn."""
    configured = getattr(generation, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, getattr(tokenizer, "eos_token_id", None), end_of_turn(tokenizer)]
    return frozenset(int(i) for i in ids if i is not None)


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that the chat template writes after an answer, which is often another than the tokenizer's own end.

    Qwen2.5 and other ChatML models are the case: `<|im_end|>` closes a turn, `<|endoftext|>` ends a document.

    Returns:
        The first added token after the answer's text; None without a template, or where it writes no such token.
    """
    talk = _talk(tokenizer)
    if talk is None or not talk[1].startswith(talk[0]):
        return None
    opening, whole = talk
    _, _, rest = whole[len(opening) :].partition(_ANSWER)
    added = tokenizer.added_tokens_decoder
    return next((int(i) for i in tokenizer(rest, add_special_tokens=False)["input_ids"] if i in added), None)


def _talk_tokens(tokenizer: Any) -> frozenset[int]:
    """The tokens that every talk has: those that end an answer, and what the chat template writes around it."""
    talk = _talk(tokenizer)
    written = tokenizer(talk[1], add_special_tokens=False)["input_ids"] if talk else ()
    return end_tokens(None, tokenizer).union(written)


_ANSWER = "Yes."


def _talk(tokenizer: Any) -> tuple[str, str] | None:
    """A question as the chat template opens the answer to it, and both; None without a template that renders them."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    question, answer = {"role": "user", "content": "Yes?"}, {"role": "assistant", "content": _ANSWER}
    template = None
    try:
        template = ChatTemplate.of(tokenizer)
        if template is None:
            return None
        return template.render([question], add_generation_prompt=True), template.render([question, answer])
    except ValueError:  # a talk that the template refuses is refused where it comes
        return None
    finally:
        if template is not None:
            template.close()
