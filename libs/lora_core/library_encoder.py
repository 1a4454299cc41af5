"""Vectors of texts by any sentence-transformers model, computed by that library."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer


class LibraryEncoder:
    """A model on the CPU. tokens: that it reads of a text, besides the special ones."""

    def __init__(self, folder: Path) -> None:
        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        special = self._model.tokenizer.num_special_tokens_to_add()
        self.tokens = int(self._model.max_seq_length or 512) - int(special)

    def encode(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]:
        """[texts, dimension], each row of length 1."""
        vectors = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def spans(self, text: str, /) -> list[tuple[int, int]]:
        """Beginning and end of each token, in characters, however many there are."""
        read = self._model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [(int(begin), int(end)) for begin, end in read["offset_mapping"]]
