"""Rows packed as a tree of shared prefixes: the same numbers as row by row, with less work."""

import subprocess
import sys
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.training.packing import layout as packing
from services.trainer.training.packing.layout import SHORTEST_SHARED, Packing

pytestmark = pytest.mark.unit

PREFIX = tuple(range(100, 100 + SHORTEST_SHARED))
# Rows that begin alike are what the tree is for: some common beginning, then few different tokens.
ROWS = st.lists(
    st.tuples(st.sampled_from([(), PREFIX, PREFIX + PREFIX]), st.lists(st.integers(1, 3), min_size=1, max_size=20)).map(
        lambda parts: [*parts[0], *parts[1]]
    ),
    min_size=1,
    max_size=9,
)


@given(ROWS)
def test_every_row_is_on_its_path_at_its_positions(rows: list[list[int]]) -> None:
    packed = Packing(rows)
    for row, path in zip(rows, packed.places, strict=True):
        assert packed.ids[path].tolist() == row
        assert packed.positions[path].tolist() == list(range(len(row)))
    assert sorted({place for path in packed.places for place in path}) == list(range(len(packed.ids)))


@given(ROWS, st.sampled_from([None, 1, 3, 12]), st.sampled_from([0, 1 << 14]))
def test_a_token_sees_its_own_path_up_to_itself_and_nothing_else(
    rows: list[list[int]], window: int | None, small: int
) -> None:
    with patch("services.trainer.training.packing.layout._SMALL", small):  # without it, nodes of every size get a group
        packed = Packing(rows)
    laid: list[tuple[int, list[int]]] = []
    for group in packed.groups:
        visible = group.visible(window)[:, 0]
        assert bool(visible.any(-1).all()), "attention over nothing is not a number"
        for queries, keys, seen in zip(group.queries, group.keys, visible, strict=True):
            laid += [(int(query), keys[sees].tolist()) for query, sees in zip(queries, seen, strict=True)]
    found: dict[int, list[int]] = {}
    for token, at in enumerate(packed.back.tolist()):
        query, found[token] = laid[at]
        assert query == token
    for path in packed.places:
        for position, token in enumerate(path):
            first = 0 if window is None else max(0, position + 1 - window)
            assert found[token] == path[first : position + 1]


def test_nodes_of_unlike_length_are_not_padded_to_the_longest() -> None:
    rows = [[row, *range(100, 100 + length)] for row, length in enumerate((400, 20, 22, 390, 18, 25))]
    groups = Packing(rows).groups
    assert sorted(group.queries.shape[0] for group in groups) == [2, 4]


def test_a_prefix_of_all_rows_is_computed_once_and_a_short_one_is_not_worth_a_node() -> None:
    rows = [[*PREFIX, 1, 2], [*PREFIX, 3], [*PREFIX, 1, 4, 5]]
    assert len(Packing(rows).ids) == len(PREFIX) + sum(len(row) - len(PREFIX) for row in rows)
    short = [[*PREFIX[:-1], index] for index in range(3)]
    assert len(Packing(short).ids) == sum(map(len, short))


def test_equal_rows_and_a_row_that_another_begins_with_are_computed_once() -> None:
    assert len(Packing([list(PREFIX)] * 3).ids) == len(PREFIX)
    assert len(Packing([list(PREFIX), [*PREFIX, 7]]).ids) == len(PREFIX) + 1


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """A model with two layers, as transformers computes it and with the packed forward."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from services.trainer.training.packing.model import install

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="sdpa",
    )
    plain = LlamaForCausalLM(config).double()
    packed = LlamaForCausalLM(config).double()
    packed.load_state_dict(plain.state_dict())
    install(packed)
    return plain.eval(), packed.eval()


@settings(max_examples=25, deadline=None)
@given(ROWS.filter(lambda rows: any(len(row) > 1 for row in rows)))
def test_log_probabilities_and_gradients_are_those_of_the_plain_model(
    models: tuple[Any, Any], rows: list[list[int]]
) -> None:
    from services.trainer.training.encoding import EncodedSample
    from services.trainer.training.objectives.objective_trainer import collate

    plain, packed = models
    batch = collate([EncodedSample(tuple(row), (-100, *row[1:])) for row in rows])
    scored = packed(**batch, fused_lm_head=True)
    wanted = batch["labels"][:, 1:]
    mask = wanted != -100
    likely = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)
    expected = likely.gather(2, wanted.clamp(min=0)[..., None])[..., 0] * mask
    torch.testing.assert_close(scored.log_probs.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(scored.label_mask, mask)
    assert torch.equal(scored.is_top1, (likely.argmax(-1) == wanted) & mask)
    entropy = -(likely.exp() * likely).sum(-1) * mask
    torch.testing.assert_close(scored.entropy.double(), entropy, rtol=0, atol=1e-5)
    for model, loss in ((plain, expected.sum()), (packed, scored.log_probs.sum())):
        model.zero_grad()
        loss.backward()
    for ours, theirs in zip(packed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_many_labels_are_scored_in_pieces_with_the_same_result(
    models: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.trainer.training.encoding import EncodedSample
    from services.trainer.training.objectives.objective_trainer import collate
    from services.trainer.training.packing import model as packed_model

    _, packed = models
    row = tuple(index % 100 for index in range(40))
    batch = collate([EncodedSample(row, row)])
    whole = packed(**batch, fused_lm_head=True).log_probs
    monkeypatch.setattr(packed_model, "_HEAD_ROWS", 7)
    torch.testing.assert_close(packed(**batch, fused_lm_head=True).log_probs, whole)


def test_while_training_only_the_likelihoods_are_computed(models: tuple[Any, Any]) -> None:
    from services.trainer.training.encoding import EncodedSample
    from services.trainer.training.objectives.objective_trainer import collate

    _, packed = models
    batch = collate([EncodedSample((1, 2, 3, 4), (1, 2, 3, 4))])
    described = packed(**batch, fused_lm_head=True)
    packed.train()
    try:
        bare = packed(**batch, fused_lm_head=True)
    finally:
        packed.eval()
    assert torch.equal(bare.log_probs, described.log_probs)
    assert described.entropy.min() > 0
    assert bare.entropy.max() == 0


def test_without_the_argument_the_forward_is_the_plain_one(models: tuple[Any, Any]) -> None:
    plain, packed = models
    ids = torch.arange(1, 9)[None]
    assert torch.equal(packed(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_nodes_are_counted_from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHORTEST_SHARED", 1)
    packed = Packing([[1, 2, 3], [1, 2, 4], [1, 5]])
    assert packed.ids.tolist() == [1, 2, 3, 4, 5]
    assert all(before < after for path in packed.places for before, after in pairwise(path))


def test_a_batch_is_computed_on_the_device_of_the_model_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.pretended_gpu"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "all there"), done.stderr[-2000:]
