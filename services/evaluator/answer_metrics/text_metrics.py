"""Metrics of an answer's text beside the expected output. Pure; values 0 to 1, None where one does not apply.

Sources: Rajpurkar et al. 2016 (token F1), Lin 2004 (ROUGE-L), Popović 2015 (chrF, as sacrebleu computes it).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from fleet_events.strict_json import read_json
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging.text import fold, words

MAX_WORDS = 2_000
"""Of either text that ROUGE-L looks at: its work is their product."""


def exact_match(sample: GoldenSample, answer: str) -> float:
    """1 for the expected output; case, kinds of quote and white space aside, and punctuation at the ends."""
    return float(_bare(answer) == _bare(sample.expected_output))


def _bare(text: str) -> str:
    return fold(text).strip(" \"'.,:;!?")


def token_f1(sample: GoldenSample, answer: str) -> float:
    """Harmonic mean of precision and recall of the words, each as often as it is there."""
    wanted, given = Counter(words(sample.expected_output)), Counter(words(answer))
    return _f1((wanted & given).total(), given.total(), wanted.total())


def rouge_l(sample: GoldenSample, answer: str) -> float:
    """F1 of the longest common subsequence of words."""
    wanted, given = words(sample.expected_output)[:MAX_WORDS], words(answer)[:MAX_WORDS]
    return _f1(_common_subsequence(wanted, given), len(given), len(wanted))


def _f1(common: int, given: int, wanted: int) -> float:
    return 2 * common / (given + wanted) if given + wanted else 1.0


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Its length, row by row."""
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, counterpart in enumerate(other, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == counterpart else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def chrf(sample: GoldenSample, answer: str) -> float:
    """F2 of character n-grams up to 6."""
    # Here, since an idle evaluator does without.
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(answer, [sample.expected_output]).score) / 100


def json_validity(sample: GoldenSample, answer: str) -> float | None:
    """Whether the answer is JSON as a whole; None where the expected output is no JSON object or list."""
    if not _is_json(sample.expected_output, (dict, list)):
        return None
    return float(_is_json(answer, (dict, list, str, int, float, bool, type(None))))


def _is_json(text: str, kinds: tuple[type, ...]) -> bool:
    try:
        return isinstance(read_json(text.strip()), kinds)
    except (ValueError, RecursionError, json.JSONDecodeError):
        return False
