"""Vectors of texts by a BERT sentence model, without what a batch of many and the model's options cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

from lora_core.bert_folder import BertFolder, Shape

AT_A_TIME = 32
"""Texts: more would not be faster."""
USUAL_TOKENS = 16
"""Of a query: the number of rows that packed weights are ordered for."""


class _Linear:
    """x Wᵀ + b, or GELU of it.

    In bfloat16 the weights are packed for oneDNN's product, which reads half as many bytes.
    """

    def __init__(self, weight: Tensor, bias: Tensor, half: bool, *, then_gelu: bool = False) -> None:
        """weight: float32 [out, in]; bias: float32 [out]."""
        self._half, self._gelu = half, then_gelu
        self._weight, self._bias = weight, bias
        if half:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), USUAL_TOKENS)
            self._bias = bias.bfloat16()

    def __call__(self, rows: Tensor) -> Tensor:
        """rows: [n, in]; returns [n, out], in bfloat16 where the product is."""
        if not self._half:
            found = linear(rows, self._weight, self._bias)
            return gelu(found) if self._gelu else found
        after, exactly = ("gelu", "none") if self._gelu else ("none", "")
        half: Tensor = torch.ops.mkldnn._linear_pointwise(rows.bfloat16(), self._weight, self._bias, after, [], exactly)
        return half


class _Layer(NamedTuple):
    """Query, key and value are one matrix."""

    attention: _Linear
    output: _Linear
    output_norm: tuple[Tensor, Tensor]
    inner: _Linear
    outer: _Linear
    outer_norm: tuple[Tensor, Tensor]


class BertEncoder:
    """The arithmetic of BERT (Devlin et al., 2019) and the mean of its last hidden states, of length 1.

    The texts are one row after the other without padding, only attention takes each by itself. float32 vectors are
    those of sentence-transformers to within 1e-5; with bfloat16 products their cosine with these is above 0.999.
    """

    def __init__(self, shape: Shape, tensors: dict[str, Tensor], tokenizer: str, half: bool) -> None:
        """tensors: by their names in a BertModel, float32. tokenizer: the text of a tokenizer.json."""
        self._whole, self._cut = Tokenizer.from_str(tokenizer), Tokenizer.from_str(tokenizer)
        for one in (self._whole, self._cut):
            one.no_padding()
            one.no_truncation()
        self._cut.enable_truncation(shape.longest)
        self._heads, self._epsilon = shape.heads, shape.epsilon
        self.dimension = shape.dimension
        self.tokens = shape.longest - self._whole.num_special_tokens_to_add(False)
        """That a text may have, besides the special ones."""
        self._words = tensors["embeddings.word_embeddings.weight"]
        self._positions = (
            tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        )

        def pair(name: str) -> tuple[Tensor, Tensor]:
            return tensors[f"{name}.weight"].clone(), tensors[f"{name}.bias"].clone()

        self._norm = pair("embeddings.LayerNorm")
        self._layers = []
        for number in range(shape.layers):
            name = f"encoder.layer.{number}"
            three = [pair(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
            self._layers.append(
                _Layer(
                    _Linear(torch.cat([one for one, _ in three]), torch.cat([bias for _, bias in three]), half),
                    _Linear(*pair(f"{name}.attention.output.dense"), half),
                    pair(f"{name}.attention.output.LayerNorm"),
                    _Linear(*pair(f"{name}.intermediate.dense"), half, then_gelu=True),
                    _Linear(*pair(f"{name}.output.dense"), half),
                    pair(f"{name}.output.LayerNorm"),
                )
            )

    @classmethod
    def open(cls, folder: Path, *, half: bool = False) -> BertEncoder | None:
        """The encoder of a sentence-transformers folder; None for one that holds a model which is built otherwise.

        half: products of bfloat16 numbers, where the processor has instructions for them.
        """
        found = BertFolder.read(folder)
        if found is None:
            return None
        try:
            with safe_open(found.weights, framework="pt") as file:
                tensors = {name: file.get_tensor(found.prefix + name) for name in found.shape.tensors}
        except (SafetensorError, OSError):
            return None  # the library that opens it instead reports what is wrong
        if any(one.dtype != torch.float32 for one in tensors.values()):
            return None
        with torch.inference_mode():
            return cls(found.shape, tensors, found.tokenizer, half and torch.cpu._is_avx512_bf16_supported())

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Beginning and end of each token, in characters, however many there are."""
        return list(self._whole.encode(text, add_special_tokens=False).offsets)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, hidden], each row of length 1; of a text no more is read than the model reads."""
        parts = [self._encode(texts[begin : begin + AT_A_TIME]) for begin in range(0, len(texts), AT_A_TIME)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), dtype=np.float32)

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        ids = [one.ids for one in self._cut.encode_batch(list(texts))]
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
        three = layer.attention(states).view(tokens, 3, self._heads, hidden // self._heads)
        # [3, heads, tokens, hidden / heads]
        three = three.permute(1, 2, 0, 3)
        seen = [scaled_dot_product_attention(*one.unsqueeze(1)) for one in _apart(three, 2, lengths)]
        whole = seen[0] if len(seen) == 1 else torch.cat(seen, dim=2)
        mixed = layer.output(whole.squeeze(0).transpose(0, 1).reshape(tokens, hidden))
        states = layer_norm(states + mixed, (hidden,), *layer.output_norm, self._epsilon)
        grown = layer.outer(layer.inner(states))
        return layer_norm(states + grown, (hidden,), *layer.outer_norm, self._epsilon)


def _apart(rows: Tensor, dim: int, lengths: Sequence[int]) -> list[Tensor]:
    """The rows of each text."""
    ends = accumulate(lengths)
    return [rows.narrow(dim, end - length, length) for end, length in zip(ends, lengths, strict=True)]
