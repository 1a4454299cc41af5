"""What the reference judge learns from models: cosines of embeddings and likelihoods, as plain numbers. Pure.

The process with the models (inference, over its OpenAI-compatible endpoints) delivers vectors and token
log-likelihoods; here they become the few numbers that `reference_judge.judge` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from services.evaluator.judging.text import sentences


@dataclass(frozen=True)
class Signals:
    """Model-made measurements of one answer.

    Cosines are in [-1, 1]. `coverage` holds, for every sentence of the expected output in order, the cosine of the
    answer's closest sentence. Likelihoods are mean natural log-likelihoods a token under the base model, given the
    prompt; None where the text is empty.
    """

    answer_expected: float
    answer_prompt: float
    expected_prompt: float
    coverage: tuple[float, ...]
    answer_likelihood: float | None
    expected_likelihood: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "coverage": tuple(data["coverage"])})


NOTHING = Signals(0.0, 0.0, 0.0, (), None, None)


def texts_to_embed(prompt: str, expected: str, answer: str) -> list[str]:
    """The texts `measure` wants vectors of: prompt, expected, answer, then the sentences of the latter two."""
    return [prompt, expected, answer, *sentences(expected), *sentences(answer)]


def measure(
    prompt: str,
    expected: str,
    answer: str,
    vectors: Sequence[Sequence[float]],
    *,
    answer_likelihood: float | None,
    expected_likelihood: float | None,
) -> Signals:
    """Signals from the vectors of `texts_to_embed` (any length; normalised here). An empty answer has none.

    Raises ValueError if the number of vectors is not the number of texts, or if one of them is not finite.
    """
    wanted = len(texts_to_embed(prompt, expected, answer))
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != wanted or not np.isfinite(matrix).all():
        raise ValueError(f"vectors: shape {matrix.shape}; expected {wanted} finite vectors of one length")
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    cosines = matrix @ matrix.T
    split = 3 + len(sentences(expected))
    among = cosines[3:split, split:] if split < wanted else np.zeros((split - 3, 1))
    return Signals(
        answer_expected=float(cosines[2, 1]),
        answer_prompt=float(cosines[2, 0]),
        expected_prompt=float(cosines[1, 0]),
        coverage=tuple(float(value) for value in among.max(axis=1)),
        answer_likelihood=answer_likelihood,
        expected_likelihood=expected_likelihood,
    )


def likelihood_text(prompt: str, text: str) -> tuple[str, int]:
    """The document whose tokens are scored, and the character at which the scored `text` begins."""
    head = prompt + "\n"
    return head + text, len(head)


def mean_likelihood(log_likelihoods: Sequence[float | None], offsets: Sequence[int], start: int) -> float | None:
    """Mean over the tokens that begin at or after character `start` (OpenAI `token_logprobs`, `text_offset`)."""
    values = [value for value, at in zip(log_likelihoods, offsets, strict=True) if at >= start and value is not None]
    return sum(values) / len(values) if values else None
