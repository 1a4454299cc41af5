"""A causal language model that computes a batch packed, and vocabulary logits only where a label asks for one."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from trl.trainer.utils import FusedCausalLMOutput

from services.trainer.training.encoding import IGNORED
from services.trainer.training.packing import Packing

_ATTENTION = "lorafleet_packed"
_HEAD_ROWS = 1024  # positions whose vocabulary logits are held at once: 200 MB in fp32 for 50k tokens


class CannotPack(ValueError):
    """The architecture computes attention or logits in a way that the packed layout does not reproduce."""


def install(model: PreTrainedModel) -> None:
    """Give a causal model a forward that answers `fused_lm_head=True`, as TRL's trainers call it, from a packed batch.

    Without that argument the forward stays what it was. Call it after TRL has made its trainer, which installs a
    forward of its own: the one here gives the same `FusedCausalLMOutput`.

    Raises:
        CannotPack: the model caps attention logits, scales or caps its final ones, or draws attention dropout.
    """
    config = model.config.get_text_config()
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) is not None:
            raise CannotPack(f"{name} of {config.model_type} is not supported by packed training")
    if getattr(config, "attention_dropout", 0.0):
        raise CannotPack("attention_dropout is not supported by packed training")
    plain = type(model).forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **inputs: Any) -> Any:
        return _score(self, **inputs) if fused_lm_head else plain(self, *args, **inputs)

    forward.__wrapped__ = plain  # type: ignore[attr-defined]  # generate() reads the signature
    model.forward = types.MethodType(forward, model)


def _score(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, **_: object
) -> FusedCausalLMOutput:
    """Log-probabilities of the labels: [rows, length - 1], zero where a label is ignored; rows are padded right.

    Entropy, mean logit and whether a label is the likeliest token are there in evaluation mode only, else zero.
    """
    # The layout is found on the CPU, from inputs on any device; what the model computes with is on its own.
    device: torch.device = model.device
    lengths = attention_mask.sum(1).tolist()
    packing = Packing([row[:length] for row, length in zip(input_ids.tolist(), lengths, strict=True)], device)
    hidden = hidden_states(model, packing)
    scored = labels[:, 1:] != IGNORED
    wanted = labels[:, 1:][scored].to(device)
    rows, columns = (each.tolist() for each in scored.nonzero(as_tuple=True))
    predictors = [packing.places[row][column] for row, column in zip(rows, columns, strict=True)]
    scored = scored.to(device)
    # What describes the distribution costs several passes over the vocabulary. TRL averages it for a log that nobody
    # reads while training; validation does read it.
    log_probs, entropy, mean, top = _label_log_probs(
        hidden[torch.tensor(predictors, dtype=torch.long).to(device)],
        model.get_output_embeddings(),
        wanted,
        described=not model.training,
    )

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(scored.shape).masked_scatter(scored, values)

    return FusedCausalLMOutput(
        log_probs=spread(log_probs),
        entropy=spread(entropy),
        mean_logits=spread(mean),
        is_top1=spread(top),
        label_mask=scored,
    )


def hidden_states(model: Any, packing: Packing) -> torch.Tensor:
    """The last hidden state of every packed token, [tokens, width]."""
    with _packed_attention(model):
        states: torch.Tensor = model.base_model(
            input_ids=packing.ids[None], position_ids=packing.positions[None], use_cache=False, packing=packing
        ).last_hidden_state
    return states[0]


_Scores = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _label_log_probs(hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor, *, described: bool) -> _Scores:
    # hidden [positions, width], labels [positions] → log-probability, entropy, mean logit, whether it is the likeliest
    def piece(rows: torch.Tensor, wanted: torch.Tensor) -> _Scores:
        logits = functional.linear(rows, head.weight, head.bias).float()
        chosen = -functional.cross_entropy(logits, wanted, reduction="none")
        if not described:
            nothing = torch.zeros_like(chosen)
            return chosen, nothing, nothing, nothing.bool()
        with torch.no_grad():
            likely = logits.log_softmax(1)
            return chosen, -(likely.exp() * likely).sum(1), logits.mean(1), logits.argmax(1) == wanted

    if len(labels) <= _HEAD_ROWS:
        return piece(hidden, labels)
    pieces = zip(torch.split(hidden, _HEAD_ROWS), torch.split(labels, _HEAD_ROWS), strict=True)
    scores = [checkpoint(piece, rows, wanted, use_reentrant=False) for rows, wanted in pieces]
    log_probs, entropy, mean, top = (torch.cat(parts) for parts in zip(*scores, strict=True))
    return log_probs, entropy, mean, top


@contextmanager
def _packed_attention(model: Any) -> Iterator[None]:
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = usual


def _attend(
    module: nn.Module,  # noqa: ARG001 - transformers passes it first
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 - the packing says who sees whom
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, width], key and value [1, key heads, tokens, width] → [1, tokens, heads, width]."""
    shared = query.shape[1] // key.shape[1]
    parts: list[torch.Tensor] = []
    for group in packing.groups:
        queries = _by_node(query, group.queries)
        keys, values = (_by_node(each, group.keys).repeat_interleave(shared, 1) for each in (key, value))
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=group.visible(sliding_window), scale=scaling
        )  # [nodes, heads, longest node, width]
        parts.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).index_select(0, packing.back)[None], None


def _by_node(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    # [1, heads, tokens, width] at [nodes, length] → [nodes, heads, length, width]
    taken = states[0].index_select(1, places.flatten())
    return taken.view(states.shape[1], *places.shape, states.shape[3]).transpose(0, 1)


def _no_mask(*_: object, **__: object) -> None:
    return None


AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, _no_mask)
