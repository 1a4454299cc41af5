"""`LoRARouter`: which adapters suit a query, by cosine similarity of embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lora_core.card import LoRACard
from lora_core.errors import InvalidAdapter
from lora_core.query_windows import query_windows


class Embedder(Protocol):
    """Anything that turns texts into vectors, [texts, dimension]; `lora_core.embedding.SentenceEmbedder` for one."""

    def embed(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Match:
    """An adapter that suits a query. score: cosine similarity, -1 to 1. virtual: known by description alone."""

    name: str
    score: float
    virtual: bool


class LoRARouter:
    """Adapters by what they are for. An adapter matches as well as its best text: description or example prompt."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._virtual: set[str] = set()

    @property
    def registered(self) -> Mapping[str, bool]:
        """Name → is it a virtual candidate."""
        return {name: name in self._virtual for name in self._vectors}

    def register(self, card: LoRACard, description: str = "", examples: Sequence[str] = ()) -> None:
        """Register an adapter; without a description its metadata's `description` is used. Replaces one of its name.

        Raises InvalidAdapter if there is no text to go by.
        """
        self._register(card.name, description or card.metadata.get("description", ""), examples)
        self._virtual.discard(card.name)

    def register_virtual(self, name: str, description: str, examples: Sequence[str] = ()) -> None:
        """Register a candidate without weights: it can be selected before it is loaded, or even trained."""
        self._register(name, description, examples)
        self._virtual.add(name)

    def unregister(self, name: str) -> None:
        """Forget an adapter. Unknown names are no error."""
        self._vectors.pop(name, None)
        self._virtual.discard(name)

    def select(self, query: str, k: int = 3, threshold: float = 0.0, *, earlier: Sequence[str] = ()) -> list[Match]:
        """The at most `k` best adapters with a similarity of at least `threshold`, best first, equals by name.

        A long query is compared by its parts, see `lora_core.query_windows`.
        earlier: the turns before it, oldest first, which count less.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        if not self._vectors:
            return []
        windows = query_windows(query, earlier)
        if not windows:
            return []
        targets = _normalised(self._embedder.embed([one.text for one in windows]))
        targets *= np.array([[one.weight] for one in windows], dtype=np.float32)
        scores = {name: float((vectors @ targets.T).max()) for name, vectors in self._vectors.items()}
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return [Match(name, score, name in self._virtual) for name, score in ranked[:k] if score >= threshold]

    def _register(self, name: str, description: str, examples: Sequence[str]) -> None:
        texts = [text for text in (description, *examples) if text.strip()]
        if not texts:
            raise InvalidAdapter(f"description of {name}", description, "a description or at least one example prompt")
        self._vectors[name] = _normalised(self._embedder.embed(texts))


def _normalised(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
