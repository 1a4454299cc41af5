"""Vectors of a few short texts by a BERT sentence model, without what a batch of many and the model's options cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROBES = ("how long do I boil an egg", "Straße? 3,000 PARTS!", "a longer text, " * 20)
AGREEMENT = 1e-5
"""Largest difference of a number from the model's own vectors."""


class _Layer(NamedTuple):
    """Weights and biases as torch keeps them, [out, in] and [out]; query, key and value are one matrix."""

    attention: tuple[Tensor, Tensor]
    output: tuple[Tensor, Tensor]
    output_norm: tuple[Tensor, Tensor]
    inner: tuple[Tensor, Tensor]
    outer: tuple[Tensor, Tensor]
    outer_norm: tuple[Tensor, Tensor]


class BertEncoder:
    """The arithmetic of BERT (Devlin et al., 2019) and the mean of its last hidden states, of length 1.

    The texts are one row after the other without padding, only attention takes each by itself. The vectors are the
    model's own to within `AGREEMENT`, which `of` tries.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        from tokenizers import Tokenizer

        bert: Any = model[0].auto_model
        self._tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(model.max_seq_length or bert.config.max_position_embeddings))
        self._heads, self._epsilon = int(bert.config.num_attention_heads), float(bert.config.layer_norm_eps)
        weights = {name: tensor.detach() for name, tensor in bert.state_dict().items()}

        def pair(name: str) -> tuple[Tensor, Tensor]:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = pair("embeddings.LayerNorm")
        self._layers = []
        for number in range(int(bert.config.num_hidden_layers)):
            name = f"encoder.layer.{number}"
            three = [pair(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
            self._layers.append(
                _Layer(
                    (torch.cat([one for one, _ in three]), torch.cat([bias for _, bias in three])),
                    pair(f"{name}.attention.output.dense"),
                    pair(f"{name}.attention.output.LayerNorm"),
                    pair(f"{name}.intermediate.dense"),
                    pair(f"{name}.output.dense"),
                    pair(f"{name}.output.LayerNorm"),
                )
            )

    @classmethod
    def of(cls, model: SentenceTransformer) -> BertEncoder | None:
        """None for a model that is built otherwise: of another class, with another pooling, with modules after it."""
        modules = [type(one).__name__ for one in model]
        if modules not in (["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"]):
            return None
        bert: Any = model[0].auto_model
        config = bert.config
        plain = (
            type(bert).__name__ == "BertModel"
            and config.hidden_act == "gelu"
            and not config.is_decoder
            and getattr(config, "position_embedding_type", "absolute") == "absolute"
            and bert.dtype == torch.float32
            and not model.default_prompt_name
        )
        if not plain:
            return None
        made = cls(model)
        theirs = model.encode(list(PROBES), normalize_embeddings=True, show_progress_bar=False)
        return made if np.abs(made.encode(PROBES) - theirs).max() <= AGREEMENT else None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, hidden], each row of length 1; of a text no more is read than the model reads."""
        ids = [one.ids for one in self._tokenizer.encode_batch(list(texts))]
        lengths = [len(one) for one in ids]
        with torch.inference_mode():
            words = self._words[torch.tensor([token for one in ids for token in one])]
            positions = torch.cat([self._positions[:length] for length in lengths])
            states = layer_norm(words + positions, (words.shape[1],), *self._norm, self._epsilon)
            for layer in self._layers:
                states = self._through(layer, states, lengths)
            means = torch.stack([one.mean(dim=0) for one in _apart(states, 0, lengths)])
            return np.asarray(normalize(means, dim=1).numpy())

    def _through(self, layer: _Layer, states: Tensor, lengths: list[int]) -> Tensor:
        """states: [tokens of all texts, hidden]."""
        tokens, hidden = states.shape
        three = linear(states, *layer.attention).view(tokens, 3, self._heads, hidden // self._heads)
        # [1, heads, tokens of the text, hidden / heads]
        query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in three.unbind(dim=1))
        texts = zip(*(_apart(one, 2, lengths) for one in (query, key, value)), strict=True)
        seen = torch.cat([scaled_dot_product_attention(*one) for one in texts], dim=2)
        mixed = linear(seen.squeeze(0).transpose(0, 1).reshape(tokens, hidden), *layer.output)
        states = layer_norm(states + mixed, (hidden,), *layer.output_norm, self._epsilon)
        grown = linear(gelu(linear(states, *layer.inner)), *layer.outer)
        return layer_norm(states + grown, (hidden,), *layer.outer_norm, self._epsilon)


def _apart(rows: Tensor, dim: int, lengths: Sequence[int]) -> list[Tensor]:
    """The rows of each text."""
    ends = accumulate(lengths)
    return [rows.narrow(dim, end - length, length) for end, length in zip(ends, lengths, strict=True)]
