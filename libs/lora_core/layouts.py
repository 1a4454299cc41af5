"""How the rows of a batch lie in the inputs of a model's layers: found by computing two batches that differ in one row.

Most layers read [rows, tokens, in]. Some are given all tokens of the batch as one list (OPT's `fc1`, the shared expert
of Qwen2-MoE), some have more dimensions between (latent attention), and some have no rows that could be distinguished:
routed experts read the tokens that chose them, position embeddings read positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedModel

from lora_core.errors import UnsupportedBaseModel
from lora_core.layers import Adaptable

ROWS, TOKENS = 5, 7
_CHANGED = 1  # the row in which the two batches differ
_NOISE = 0.1  # of its change, what kernels that are not exact may leave in the other rows


@dataclass(frozen=True)
class Layout:
    """Where a layer's input has its rows.

    flat: the first dimension is not the rows', but the rows' tokens are one list, row by row.
    per_token: how many vectors the layer reads for each token, 0 where that is not one number.
    """

    flat: bool = False
    per_token: int = 1


PLAIN = Layout()


@dataclass(frozen=True)
class Layouts:
    """of: module → layout, of the layers that can carry adapters row by row. refused: module → why another cannot."""

    of: Mapping[str, Layout]
    refused: Mapping[str, str]


def layouts(model: PreTrainedModel, modules: Mapping[str, Adaptable]) -> Layouts:
    """The layouts of these modules of a model, which is computed twice, on 5 rows of 7 tokens.

    A layer that text does not reach (an image encoder's) is taken to be plain: it adds nothing.

    Raises:
        UnsupportedBaseModel: the model cannot be computed from token ids alone.
    """
    first, second = (_inputs(model, modules, ids) for ids in _batches(model))
    found: dict[str, Layout] = {}
    refused: dict[str, str] = {}
    for name in modules:
        if _is_routed(name):
            refused[name] = "a routed expert: it reads only the tokens that chose it"
            continue
        layout = _common(first[name], second[name])
        if layout is None:
            refused[name] = "a layer whose input does not have the rows of the batch in their order"
        else:
            found[name] = layout
    return Layouts(found, refused)


def _common(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> Layout | None:
    """From all inputs of a layer in the two batches, as some are called several times in a pass."""
    if not first and not second:
        return PLAIN
    if len(first) != len(second):
        return None
    seen = [_layout(one, other) for one, other in zip(first, second, strict=True)]
    known = [layout for layout in seen if layout is not None]
    if len(known) < len(seen) or len({layout.flat for layout in known}) > 1:
        return None
    sizes = {layout.per_token for layout in known}
    return Layout(known[0].flat, sizes.pop() if len(sizes) == 1 else 0)


def _batches(model: PreTrainedModel) -> Iterator[torch.Tensor]:
    """Two batches of token ids, [rows, tokens], none of them with a meaning of its own."""
    config = model.config.get_text_config()
    vocabulary = int(config.vocab_size)
    special = {value for key, value in model.config.to_dict().items() if key.endswith(("_token_id", "_token_index"))
               and isinstance(value, int)}  # fmt: skip
    usable = [token for token in range(min(vocabulary, 100)) if token not in special] or [0]
    count = ROWS * TOKENS
    ids = torch.tensor([usable[(7 + 3 * place) % len(usable)] for place in range(count)]).view(ROWS, TOKENS)
    yield ids.to(model.device)
    ids = ids.clone()
    ids[_CHANGED] = torch.tensor([usable[(8 + 5 * place) % len(usable)] for place in range(TOKENS)])
    yield ids.to(model.device)


def _inputs(
    model: PreTrainedModel, modules: Mapping[str, Adaptable], ids: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    with _watched(modules, seen), torch.inference_mode():
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        except Exception as error:
            raise UnsupportedBaseModel(
                f"{type(model).__name__} cannot be computed from token ids alone ({type(error).__name__}: {error}): "
                "expected a language model, or one of which the text part is one"
            ) from error
    return seen


@contextmanager
def _watched(modules: Mapping[str, Adaptable], seen: Mapping[str, list[torch.Tensor]]) -> Iterator[None]:
    def keep(name: str, module: nn.Module, given: tuple[object, ...]) -> None:
        value = given[0] if given else None
        if not isinstance(value, torch.Tensor):
            value = torch.zeros(1)  # called in another way than forward functions of ours can be: no rows
        seen[name].append(value.unsqueeze(-1) if isinstance(module, nn.Embedding) else value.clone())

    handles = [
        module.register_forward_pre_hook(lambda module, given, name=name: keep(name, module, given))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layout(one: torch.Tensor, other: torch.Tensor) -> Layout | None:
    """From a layer's inputs [..., in] in the two batches; None where the rows cannot be distinguished."""
    vectors = one.shape[:-1].numel()
    flat = one.shape[0] != ROWS
    if one.shape != other.shape or vectors % (ROWS * TOKENS if flat else ROWS):
        return None
    change = (one.double() - other.double()).abs().reshape(ROWS, -1).mean(1)
    others = torch.cat([change[:_CHANGED], change[_CHANGED + 1 :]])
    if bool((others > _NOISE * change[_CHANGED]).any()) or (flat and not bool(change[_CHANGED] > 0)):
        return None
    per_token = vectors // (ROWS * TOKENS) if vectors % (ROWS * TOKENS) == 0 else 0
    return Layout(flat, per_token)


def _is_routed(name: str) -> bool:
    """`…experts.3.…`: one of a list of experts."""
    parts = name.split(".")
    return any(part.endswith("experts") and after.isdecimal() for part, after in pairwise(parts))
