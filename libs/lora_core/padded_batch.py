"""`PaddedBatch`: rows that share one forward pass, and how two of them become one."""

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from transformers import DynamicCache, PreTrainedModel

from lora_core.forward_pass import Inputs
from lora_core.kv_cache import GrowingLayer, copies_rows, new_cache
from lora_core.slots.row_plan import RowPlan


class Slots(Protocol):
    """What a padded batch needs of the engine: a plan for its rows, and a forward pass under it."""

    def plan(self, rows: Sequence[int]) -> RowPlan: ...

    def order(self, rows: Sequence[int]) -> list[int]:
        """Places of these rows, those of one slot beside each other: a plan then has fewer and larger products."""
        ...

    def read(self, plan: RowPlan, inputs: Inputs, cache: DynamicCache) -> torch.Tensor | None:
        """The logits of the last position, [rows, vocabulary], if they are wanted; the cache then holds the inputs."""
        ...


class PaddedBatch:
    """Rows (by their batch's numbers) that have the same number of positions in the cache, padded on the left.

    padding: of each row the positions that hold nothing. input: [rows, tokens], what is still to be read: the prompts
    at first, then one token of each row at a time. used: positions in the cache.

    prompts: of some rows may be the same; reads[i] is the prompt of row i, None: each row has the one at its place. A
    prompt is read once for all its rows, whose slots have to be the same, and its cache is then copied to each of them.

    beginnings: of each prompt the blocks that it need not read, see `PrefixCache`; only with caches that grow.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        slots: Slots,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        reads: Sequence[int] | None = None,
        *,
        beginnings: Sequence[Sequence[torch.Tensor]] = (),
    ) -> None:
        self._slots = slots
        order = slots.order(rows)
        self.rows = [rows[place] for place in order]
        if reads is None:
            prompts = [prompts[place] for place in order]
            beginnings = [beginnings[place] for place in order] if beginnings else ()
        else:
            reads = [reads[place] for place in order]
        self._cache = new_cache(model.config)
        if reads is not None and not copies_rows(self._cache):
            prompts, reads = [prompts[prompt] for prompt in reads], None
        self._reads = None if reads is None else list(reads)
        longest = max(len(prompt) for prompt in prompts)
        self._padding = [longest - len(prompt) for prompt in prompts]
        self._input, _ = left_padded(prompts, model.device)
        self._used = 0
        if any(beginnings):
            self._begin_with(beginnings, [len(prompt) for prompt in prompts])
        self._plan = self._plan_rows()

    def _begin_with(self, beginnings: Sequence[Sequence[torch.Tensor]], lengths: Sequence[int]) -> None:
        """All rows read as many tokens as the one that has most to read."""
        known = [sum(block.shape[3] for block in own) for own in beginnings]
        self._used = max(lengths) - max(length - own for length, own in zip(lengths, known, strict=True))
        whole = [
            torch.cat(list(own), 3)[:, :, :, : self._used - padding] if own and self._used > padding else None
            for own, padding in zip(beginnings, self._padding, strict=True)
        ]
        for number, layer in enumerate(self._growing() or ()):
            layer.fill([None if own is None else own[number] for own in whole], self._used)
        self._input = self._input[:, self._used :]

    def numbers(self, row: int, tokens: int) -> torch.Tensor:
        """Keys and values of a row's first tokens, [layers, 2, heads, tokens, head_dim]; only with caches that grow."""
        place = self.rows.index(row)
        span = slice(self._padding[place], self._padding[place] + tokens)
        layers = self._growing() or []
        return torch.stack(
            [
                torch.stack([cast("torch.Tensor", one)[place, :, span] for one in (layer.keys, layer.values)])
                for layer in layers
            ]
        )

    @property
    def positions(self) -> int:
        """How many positions the cache holds once all is read, padding included."""
        return self._used + int(self._input.shape[1])

    def forward(self, most: int | None = None) -> torch.Tensor | None:
        """Read what is to be read, at most `most` tokens over all rows if that is given.

        Returns the logits of the last position, [rows, vocabulary], or None while there is more to be read.
        """
        pending = self._input.shape[1]
        taken = pending if most is None else min(pending, max(1, most // len(self._input)))
        inputs = Inputs(self._input[:, :taken], tuple(self._padding), self._used, taken == pending)
        logits = self._slots.read(self._plan, inputs, self._cache)
        self._used, self._input = inputs.end, self._input[:, taken:]
        if logits is not None and self._reads is not None:
            logits = logits[self._select(self._reads)]
            self._reads = None
            self._plan = self._plan_rows()
        return logits

    def feed(self, tokens: Sequence[int]) -> None:
        """The next forward pass reads these, one for each row."""
        self._input = torch.tensor(tokens, device=self._input.device).unsqueeze(1)

    def keep(self, rows: Sequence[int]) -> None:
        """Take all other rows out, and with them the padding that only they needed."""
        wanted = set(rows)
        kept = [position for position, row in enumerate(self.rows) if row in wanted]
        if len(kept) == len(self.rows):
            return
        if not kept:
            self.rows = []
            return
        layers = self._growing()
        if self._reads is not None:
            reads = [self._reads[position] for position in kept]
            self.rows = [self.rows[position] for position in kept]
            kept = sorted(set(reads))
            self._reads = [kept.index(prompt) for prompt in reads]
            self._select(kept)
        elif layers is None:
            self.rows = [self.rows[position] for position in kept]
            self._select(kept)
        else:
            self._drop_others(kept, layers)
        surplus = min(self._padding)
        if surplus and layers is not None and self._input.shape[1] == 1:  # else not all of it is in the cache yet
            for layer in layers:
                layer.trim(surplus)
            self._padding = [padding - surplus for padding in self._padding]
            self._used -= surplus
        self._plan = self._plan_rows()

    def _drop_others(self, kept: list[int], layers: Sequence[GrowingLayer]) -> None:
        """The last rows fill the places of those that leave: nothing else is moved."""
        left = len(kept)
        holes = sorted(set(range(left)) - set(kept))
        moves = list(zip(kept[left - len(holes) :], holes, strict=True))
        with torch.inference_mode():
            for layer in layers:
                layer.drop(moves, left)
        places = list(range(left))
        for source, place in moves:
            places[place] = source
        self._input = self._input[places]
        self._padding, self.rows = [self._padding[at] for at in places], [self.rows[at] for at in places]

    def absorb(self, other: "PaddedBatch") -> bool:
        """Take the rows of another padded batch in, if both have read their prompts and the model's cache allows it."""
        mine, theirs = self._growing(), other._growing()
        reading = any(one._input.shape[1] != 1 or one._reads is not None for one in (self, other))
        if mine is None or theirs is None or reading:
            return False
        positions = max(self.positions, other.positions)
        rows = [*self.rows, *other.rows]
        plan = self._slots.plan(rows)
        with torch.inference_mode():
            for layer, its in zip(mine, theirs, strict=True):
                layer.join(its, positions - 1)  # the last position is read by the next forward pass
        self._padding = [own + positions - one.positions for one in (self, other) for own in one._padding]
        self._used, self._input = positions - 1, torch.cat([self._input, other._input])
        self.rows, self._plan = rows, plan
        return True

    def _growing(self) -> list[GrowingLayer] | None:
        layers = [layer for layer in self._cache.layers if isinstance(layer, GrowingLayer)]
        return layers if len(layers) == len(self._cache.layers) else None

    def _select(self, places: Sequence[int]) -> torch.Tensor:
        """Have the rows at these places in the cache, in this order; a row may be there several times."""
        index = torch.tensor(places, device=self._input.device)
        with torch.inference_mode():
            self._cache.batch_select_indices(index)
        self._input, self._padding = self._input[index], [self._padding[place] for place in places]
        return index

    def _plan_rows(self) -> RowPlan:
        if self._reads is None:
            return self._slots.plan(self.rows)
        return self._slots.plan([self.rows[self._reads.index(prompt)] for prompt in range(len(self._input))])


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest prompt]; what is masked holds token 0."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
