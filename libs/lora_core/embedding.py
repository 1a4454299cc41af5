"""Sentence embeddings from a local sentence-transformers folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lora_core.base_model import revision
from lora_core.errors import AdapterNotFound


class SentenceEmbedder:
    """Turns texts into vectors of length 1, so that their dot product is the cosine similarity. Offline."""

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        if not (folder / "modules.json").is_file():
            raise AdapterNotFound(f"no sentence-transformers model in {folder}: modules.json is missing")
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.dimension = int(self._model.get_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[texts, dimension] float32, each row of length 1. No texts give [0, dimension]."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


def embedding_identity(folder: Path) -> str:
    """NAME@REVISION of the model in a folder: vectors that two models made do not compare.

    Raises AdapterNotFound if the folder is no model.
    """
    return f"{folder.name}@{revision(folder)[:16]}"
