"""Sentence embeddings from a local sentence-transformers folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lora_core.base_model import revision
from lora_core.errors import AdapterNotFound

FEW = 16
"""Texts that `BertEncoder` reads, where it knows the model: a query and its windows, an adapter's few texts."""


class SentenceEmbedder:
    """Turns texts into vectors of length 1, so that their dot product is the cosine similarity. Offline."""

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        if not (folder / "modules.json").is_file():
            raise AdapterNotFound(f"no sentence-transformers model in {folder}: modules.json is missing")
        from sentence_transformers import SentenceTransformer

        from lora_core.bert_encoder import BertEncoder

        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self._few = BertEncoder.of(self._model)
        special = self._model.tokenizer.num_special_tokens_to_add()
        self._most = int(self._model.max_seq_length or 512) - int(special)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, dimension] float32, each row of length 1. No texts give [0, dimension].

        The model reads so many tokens (256 for all-MiniLM-L6-v2). A text that has more is the mean of its windows of
        that length, by their tokens, so that no part of it is left out.
        """
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        windows = [self._windows(text) for text in texts]
        vectors = self._encode([text for of_text in windows for text, _ in of_text])
        found = np.zeros((len(texts), self.dimension), dtype=np.float32)
        at = 0
        for row, of_text in enumerate(windows):
            for vector, (_, tokens) in zip(vectors[at : at + len(of_text)], of_text, strict=True):
                found[row] += vector * (tokens if len(of_text) > 1 else 1)
            at += len(of_text)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """[texts, dimension], each row of length 1."""
        if self._few is not None and len(texts) <= FEW:
            return self._few.encode(texts)
        vectors = self._model.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def _windows(self, text: str) -> list[tuple[str, int]]:
        """(text, tokens) of consecutive parts that the model reads whole."""
        if len(text) < self._most:  # a token has a character at least
            return [(text, 1)]
        tokenizer = self._model.tokenizer
        read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)[
            "offset_mapping"
        ]
        if len(read) <= self._most:
            return [(text, 1)]
        begins = range(0, len(read), self._most)
        parts = [read[begin : begin + self._most] for begin in begins]
        return [(text[part[0][0] : part[-1][1]], len(part)) for part in parts]


def embedding_identity(folder: Path) -> str:
    """NAME@REVISION of the model in a folder, and how long texts are read: other vectors do not compare.

    Raises AdapterNotFound if the folder is no model.
    """
    return f"{folder.name}@{revision(folder)[:16]}+windows"
