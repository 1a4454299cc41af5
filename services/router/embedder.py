"""Sentence vectors, computed by one thread beside the event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lora_core.embedding import SentenceEmbedder


class Embedder:
    """The service's embedding model; `identity` names it, since vectors of two models do not compare."""

    def __init__(self, model: "SentenceEmbedder", identity: str, thread: ThreadPoolExecutor) -> None:
        self._model = model
        self._thread = thread
        self.identity = identity
        self.dimension = model.dimension

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[number of texts, dimensions], each row of length 1."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._model.embed, list(texts))


@asynccontextmanager
async def open_embedder(folder: Path, threads: int) -> AsyncIterator[Embedder]:
    """Loads the model in its thread. Raises what the model's loader raises for a folder that is none."""
    # One thread: the model's arithmetic has threads of its own, and queries are short.
    with ThreadPoolExecutor(1, thread_name_prefix="embedder") as thread:
        model, identity = await asyncio.get_running_loop().run_in_executor(thread, _load, folder, threads)
        yield Embedder(model, identity, thread)


def _load(folder: Path, threads: int) -> "tuple[SentenceEmbedder, str]":
    import torch

    from lora_core.embedding import SentenceEmbedder, embedding_identity

    torch.set_num_threads(threads)
    return SentenceEmbedder(folder), embedding_identity(folder)
