"""Sentence embeddings from a local sentence-transformers folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lora_core.base_model import revision
from lora_core.errors import AdapterNotFound


class _Encoder(Protocol):
    dimension: int
    tokens: int
    """That are read of a text, besides the special ones."""

    def encode(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]: ...

    def spans(self, text: str, /) -> list[tuple[int, int]]: ...


class SentenceEmbedder:
    """Turns texts into vectors of length 1, so that their dot product is the cosine similarity. Offline.

    A plain BERT runs on `BertEncoder`, every other model on sentence-transformers.

    half: let a plain BERT multiply in bfloat16 where the processor has instructions for it. Cosines move by less than
        0.01.
    """

    def __init__(self, folder: Path | str, *, half: bool = False) -> None:
        folder = Path(folder)
        if not (folder / "modules.json").is_file():
            raise AdapterNotFound(f"no sentence-transformers model in {folder}: modules.json is missing")
        from lora_core.bert_encoder import BertEncoder

        self._encoder: _Encoder = BertEncoder.open(folder, half=half) or _of_library(folder)
        self.dimension = self._encoder.dimension

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, dimension] float32, each row of length 1. No texts give [0, dimension].

        The model reads so many tokens (256 for all-MiniLM-L6-v2). A text that has more is the mean of its windows of
        that length, by their tokens, so that no part of it is left out.
        """
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        windows = [self._windows(text) for text in texts]
        vectors = self._encoder.encode([text for of_text in windows for text, _ in of_text])
        found = np.zeros((len(texts), self.dimension), dtype=np.float32)
        at = 0
        for row, of_text in enumerate(windows):
            for vector, (_, tokens) in zip(vectors[at : at + len(of_text)], of_text, strict=True):
                found[row] += vector * (tokens if len(of_text) > 1 else 1)
            at += len(of_text)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _windows(self, text: str) -> list[tuple[str, int]]:
        """(text, tokens) of consecutive parts that the model reads whole."""
        most = self._encoder.tokens
        if len(text) < most:  # a token has a character at least
            return [(text, 1)]
        read = self._encoder.spans(text)
        if len(read) <= most:
            return [(text, 1)]
        parts = [read[begin : begin + most] for begin in range(0, len(read), most)]
        return [(text[part[0][0] : part[-1][1]], len(part)) for part in parts]


def _of_library(folder: Path) -> _Encoder:
    from lora_core.library_encoder import LibraryEncoder

    return LibraryEncoder(folder)


def embedding_identity(folder: Path) -> str:
    """NAME@REVISION of the model in a folder, and how long texts are read: other vectors do not compare.

    Raises AdapterNotFound if the folder is no model.
    """
    return f"{folder.name}@{revision(folder)[:16]}+windows"
