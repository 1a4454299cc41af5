"""Sentence vectors for /v1/embeddings, computed by one thread beside the event loop."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lora_core.embedding import SentenceEmbedder


class Embedder:
    """A sentence-transformers model under the name that requests use; loaded when it is first asked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._model: SentenceEmbedder | None = None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[number of texts, dimensions], each row of length 1."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts))

    def close(self) -> None:
        """Ends the thread after the text that it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        if self._model is None:
            from lora_core.embedding import SentenceEmbedder

            self._model = SentenceEmbedder(self._folder)
        return self._model.embed(texts)
