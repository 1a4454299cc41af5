"""`DirectDecoder`: a forward pass of a Llama-like model, adapters included, in about 20 calls a layer."""

from collections.abc import Sequence
from functools import partial
from typing import Self

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from lora_core.direct.llama_like import LlamaLike
from lora_core.direct.rotation import Rotation
from lora_core.forward_pass import Inputs
from lora_core.kv_cache import GrowingLayer
from lora_core.slots.fused_additions import Addition, fusible, of_prompts, of_step
from lora_core.slots.projection_group import ProjectionGroup
from lora_core.slots.row_plan import RowPlan
from lora_core.slots.slot_bank import SlotBank


class DirectDecoder:
    """Gives the numbers of the model's own forward, up to the order in which sums are rounded.

    It reads and writes the same cache, so that each pass of a batch may go through either. The caller holds what locks
    there are and has gradients off.
    """

    def __init__(self, model: LlamaLike, bank: SlotBank) -> None:
        self._model, self._bank = model, bank
        self._rotation = Rotation(model.angles, model.head_dim, model.embedding.dtype)
        self._groups = [_group_of(bank, modules) for modules in model.projections]
        self._hidden, self._head = (model.embedding.shape[1],), (model.head_dim,)
        self._rotated = model.heads + model.key_heads
        self._attend = partial(functional.scaled_dot_product_attention, scale=model.multipliers.attention)

    @classmethod
    def of(cls, model: PreTrainedModel, bank: SlotBank, packed: bool) -> Self | None:
        """None for a model of another family. packed: weights may be there twice, see `PackedProduct`."""
        found = LlamaLike.of(model, packed)
        return None if found is None else cls(found, bank)

    def serves(self, plan: RowPlan) -> bool:
        """Does a pass under this plan have the numbers of the model's own?

        Not where adapters change embeddings or the output head, where one is merged, and where the model has hooks or
        other layers than it was made with.
        """
        if plan.direct is None:
            used = set(self._bank.used(plan))
            plan.direct = used <= {group for group in self._groups if group is not None}
        return plan.direct and not self._bank.merged(plan) and self._model.intact

    def read(self, plan: RowPlan, inputs: Inputs, cache: DynamicCache) -> torch.Tensor | None:
        """The logits of the last position, [rows, vocabulary]; None where they are not wanted."""
        model, epsilon, times = self._model, self._model.epsilon, self._model.multipliers
        rows, tokens = inputs.ids.shape
        to_heads, to_output, to_gates, to_down = self._additions(plan, tokens)
        visible = self._visible(inputs)
        cosines, sines = self._rotation.of(inputs)
        hidden = functional.embedding(inputs.ids, model.embedding)
        if times.embedding != 1:
            hidden *= times.embedding
        for number, (layer, kept) in enumerate(zip(model.layers, cache.layers, strict=True)):
            assert isinstance(kept, GrowingLayer)
            heads_of, output_of, gates_of, down_of = layer.products
            x = functional.rms_norm(hidden, self._hidden, layer.before_attention, epsilon)
            heads = _with(heads_of(x), x, to_heads, number).view(rows, tokens, -1, model.head_dim)
            turned = heads[:, :, : self._rotated]
            if layer.of_heads is not None:
                turned = functional.rms_norm(turned, self._head, None, epsilon).mul_(layer.of_heads)
            if layer.turned:
                turned = self._rotation.turn(turned, cosines, sines)
            keys, values = kept.update(
                turned[:, :, model.heads :].transpose(1, 2), heads[:, :, self._rotated :].transpose(1, 2)
            )
            x = self._attention(turned[:, :, : model.heads], keys, values, visible)
            hidden.add_(_with(output_of(x), x, to_output, number), alpha=times.residual)
            x = functional.rms_norm(hidden, self._hidden, layer.before_mlp, epsilon)
            gate, up = _with(gates_of(x), x, to_gates, number).chunk(2, -1)
            x = functional.silu(gate).mul_(up)
            hidden.add_(_with(down_of(x), x, to_down, number), alpha=times.residual)
        if not inputs.last:
            return None
        logits = model.head(functional.rms_norm(hidden[:, -1], self._hidden, model.norm, epsilon))
        return logits if times.logits == 1 else logits.mul_(times.logits)

    def _additions(self, plan: RowPlan, tokens: int) -> Sequence[Sequence[Addition]]:
        if tokens == 1:
            if plan.step_additions is None:
                plan.step_additions = [of_step(group, plan) if group is not None else () for group in self._groups]
            return plan.step_additions
        if plan.prompt_additions is None:
            plan.prompt_additions = [of_prompts(group, plan) if group is not None else () for group in self._groups]
        return plan.prompt_additions

    def _visible(self, inputs: Inputs) -> torch.Tensor | None:
        """What each token may look at, [rows, 1, tokens of all heads that share keys, positions]; None for all before.

        A token of padding sees itself, so that its numbers, which nothing reads, are numbers.
        """
        tokens = inputs.ids.shape[1]
        padded = any(inputs.padding)
        if tokens == 1:
            return inputs.filled()[:, None, None] if padded else None
        if not padded and not inputs.used:
            return None
        positions = torch.arange(inputs.end)
        own = positions[inputs.used :, None]
        seen = (positions <= own) & inputs.filled()[:, None] | (positions == own)
        return seen.repeat(1, self._model.heads // self._model.key_heads, 1).unsqueeze(1)

    def _attention(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor | None
    ) -> torch.Tensor:
        """queries: [rows, tokens, heads, head_dim]; keys, values: [rows, key heads, positions, head_dim].

        The queries that share keys are read as so many tokens of one head: keys and values are never repeated.
        """
        rows, tokens, heads, size = queries.shape
        shared = self._model.key_heads
        if tokens == 1:
            found = self._attend(queries.view(rows, shared, heads // shared, size), keys, values, attn_mask=visible)
            return found.reshape(rows, 1, heads * size)
        if visible is None:
            found = self._attend(queries.transpose(1, 2), keys, values, is_causal=True, enable_gqa=heads != shared)
            return found.transpose(1, 2).reshape(rows, tokens, heads * size)
        packed = queries.transpose(1, 2).reshape(rows, shared, -1, size)
        found = self._attend(packed, keys, values, attn_mask=visible)
        return found.reshape(rows, heads, tokens, size).transpose(1, 2).reshape(rows, tokens, heads * size)


def _with(output: torch.Tensor, x: torch.Tensor, own: Sequence[Addition], layer: int) -> torch.Tensor:
    if own:
        own[layer](x, output)
    return output


def _group_of(bank: SlotBank, modules: Sequence[Sequence[object]]) -> ProjectionGroup | None:
    """The group whose members are these modules of all layers, in this order, if their additions can be fused."""
    for group in bank.groups:
        members = [tuple(one) for one in zip(*(member.modules for member in group.members), strict=True)]
        if len(members) == len(modules) and all(
            len(own) == len(wanted) and all(a is b for a, b in zip(own, wanted, strict=True))
            for own, wanted in zip(members, modules, strict=True)
        ):
            return group if fusible(group) else None
    return None
