"""A causal language model that computes a batch packed, and vocabulary logits only where a label needs one."""

import types
from collections.abc import Callable, Iterator
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
from services.trainer.training.packing.layout import SHORTEST_SHARED, Packing

_ATTENTION = "lorafleet_packed"
_HEAD_ROWS = 1024  # positions whose vocabulary logits are held at once: 200 MB in fp32 for 50k tokens
_ALIKE = 1e-3  # nats that the rounding of another order of sums may come to; another row's tokens make far more


def install(model: PreTrainedModel) -> str:
    """Give a causal model a forward that answers `fused_lm_head=True`, as TRL's trainers call it.

    Without that argument the forward stays what it was. Batches are computed packed where a few rows show that this
    gives the model's own numbers. Where it does not (layers that mix tokens by other means than attention, attention of
    another kind), rows are padded and the model's own forward computes them: slower, and right for every architecture.
    Call it after TRL has made its trainer, which installs a forward of its own: the one here gives the same
    `FusedCausalLMOutput`.

    Returns:
        Why rows are padded; empty where they are packed.
    """
    plain = type(model).forward
    why = _unlike(model, plain)

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **inputs: Any) -> Any:
        if not fused_lm_head:
            return plain(self, *args, **inputs)
        return _padded(self, plain, **inputs) if why else _packed(self, **inputs)

    forward.__wrapped__ = plain  # type: ignore[attr-defined]  # generate() reads the signature
    model.forward = types.MethodType(forward, model)
    return why


def _unlike(model: Any, plain: Callable[..., Any]) -> str:
    """How the packed numbers of a few rows differ from the model's own; empty where they do not."""
    common, row = SHORTEST_SHARED, SHORTEST_SHARED + 3
    ids = (torch.arange(3 * row).view(3, row) * 7919 + 11) % model.config.get_text_config().vocab_size
    ids[1, :common] = ids[0, :common]
    mask = torch.ones_like(ids)
    mask[1, -1] = mask[2, common:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            wanted: Any = _padded(model, plain, **inputs).log_probs
            try:
                found: Any = _packed(model, **inputs).log_probs
            except Exception as error:  # any fault of an architecture with a layout that it does not know
                return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        model.train(training)
    apart = float((found - wanted).abs().max())
    return "" if apart <= _ALIKE else f"log-probabilities would be {apart:.2g} nats from the model's own"


def _packed(
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
    hidden = hidden[torch.tensor(predictors, dtype=torch.long).to(device)]

    def piece(states: torch.Tensor, part: torch.Tensor) -> _Scores:
        return _describe(_vocabulary(model, states), part, described=not model.training)

    if len(wanted) <= _HEAD_ROWS:
        return _spread(piece(hidden, wanted), scored.to(device))
    pieces = zip(torch.split(hidden, _HEAD_ROWS), torch.split(wanted, _HEAD_ROWS), strict=True)
    scores = [checkpoint(piece, states, part, use_reentrant=False) for states, part in pieces]
    log_probs, entropy, mean, top = (torch.cat(parts) for parts in zip(*scores, strict=True))
    return _spread((log_probs, entropy, mean, top), scored.to(device))


def _padded(
    model: Any,
    plain: Callable[..., Any],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    **_: object,
) -> FusedCausalLMOutput:
    """The same by the model's own forward."""
    input_ids, attention_mask, labels = (each.to(model.device) for each in (input_ids, attention_mask, labels))
    scored = labels[:, 1:] != IGNORED
    places = scored.any(0).nonzero().flatten()  # the head is the dearest layer: only where some row has a label
    logits = plain(
        model, input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=places
    ).logits
    scores = _describe(logits[scored[:, places]], labels[:, 1:][scored], described=not model.training)
    return _spread(scores, scored)


_Scores = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Of each label: log-probability, entropy, mean logit, whether it is the likeliest token; [labels] each."""


def _spread(scores: _Scores, scored: torch.Tensor) -> FusedCausalLMOutput:
    log_probs, entropy, mean, top = (values.new_zeros(scored.shape).masked_scatter(scored, values) for values in scores)
    return FusedCausalLMOutput(log_probs=log_probs, entropy=entropy, mean_logits=mean, is_top1=top, label_mask=scored)


def hidden_states(model: Any, packing: Packing) -> torch.Tensor:
    """The last hidden state of every packed token, [tokens, width]."""
    with packed_attention(model):
        states: torch.Tensor = model.base_model(
            input_ids=packing.ids[None], position_ids=packing.positions[None], use_cache=False, packing=packing
        ).last_hidden_state
    return states[0]


def _vocabulary(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of hidden states, [positions, vocabulary], scaled and capped as Granite, Cohere and Gemma 2 do."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    logits = functional.linear(hidden, head.weight, head.bias).float()
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def _describe(logits: torch.Tensor, labels: torch.Tensor, *, described: bool) -> _Scores:
    # What describes the distribution costs several passes over the vocabulary. TRL averages it for a log that nothing
    # reads while training; validation does read it.
    logits = logits.float()
    chosen = -functional.cross_entropy(logits, labels, reduction="none")
    if not described:
        nothing = torch.zeros_like(chosen)
        return chosen, nothing, nothing, nothing.bool()
    with torch.no_grad():
        likely = logits.log_softmax(1)
        return chosen, -(likely.exp() * likely).sum(1), logits.mean(1), logits.argmax(1) == labels


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Attention by the packing: in a forward pass, and in a backward pass that computes layers again."""
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
    attention_mask: torch.Tensor | None,  # noqa: ARG001 - the packing decides which position sees which
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, width], key and value [1, key heads, tokens, width] → [1, tokens, heads, width]."""
    shared = query.shape[1] // key.shape[1]
    parts: list[torch.Tensor] = []
    for group in packing.groups:
        queries = _by_node(query, group.queries)
        keys, values = (_by_node(each, group.keys).repeat_interleave(shared, 1) for each in (key, value))
        visible = group.visible(sliding_window)
        if softcap is None:
            mixed = functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=visible, scale=scaling, dropout_p=dropout
            )  # [nodes, heads, longest node, width]
        else:
            scores = queries @ keys.transpose(2, 3) * (scaling or queries.shape[3] ** -0.5)
            capped = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, float("-inf"))
            mixed = functional.dropout(capped.softmax(-1), dropout) @ values
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
