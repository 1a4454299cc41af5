"""`EmbeddingThread`: sentence vectors, computed by one thread beside the event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_core.embedding import SentenceEmbedder, embedding_identity


class EmbeddingThread:
    """A sentence-transformers model, loaded on first use, or by `load`.

    One thread: the model's arithmetic has threads of its own, and queries are short.

    name: what requests call it. threads: of the arithmetic of the whole process; None leaves them as they are.
    half: see `SentenceEmbedder`.
    """

    def __init__(self, folder: Path, name: str = "", threads: int | None = None, *, half: bool = False) -> None:
        self.name = name or folder.name
        self._folder, self._threads, self._half = folder, threads, half
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._model: SentenceEmbedder | None = None
        self._identity = ""

    @property
    def identity(self) -> str:
        """Names the loaded model, since vectors of two models do not compare: see `embedding_identity`."""
        self._loaded()
        return self._identity

    @property
    def dimension(self) -> int:
        """Numbers of a vector of the loaded model."""
        return self._loaded().dimension

    async def load(self) -> None:
        """Load the model now. Raises what `SentenceEmbedder` raises for a folder that is none."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._load)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[number of texts, dimension], each row of length 1."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._embed, list(texts))

    def close(self) -> None:
        """End the thread after the texts that it is at."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        return self._load().embed(texts)

    def _load(self) -> SentenceEmbedder:
        if self._model is None:
            if self._threads is not None:
                import torch

                torch.set_num_threads(self._threads)
            self._model = SentenceEmbedder(self._folder, half=self._half)
            self._identity = embedding_identity(self._folder)
        return self._model

    def _loaded(self) -> SentenceEmbedder:
        if self._model is None:
            raise RuntimeError("the embedding model is not loaded yet: await load() first")
        return self._model


@asynccontextmanager
async def open_embedder(folder: Path, threads: int, *, half: bool = False) -> AsyncIterator[EmbeddingThread]:
    """A loaded model, closed at the end. Raises what `SentenceEmbedder` raises for a folder that is none."""
    embedder = EmbeddingThread(folder, threads=threads, half=half)
    try:
        await embedder.load()
        yield embedder
    finally:
        embedder.close()
