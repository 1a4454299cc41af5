"""The reference judge: five criteria from an answer, its golden sample and model-made signals. Pure, deterministic.

No language model judges here. Accuracy follows from the sample's rules (criteria.py) and on the facts of its expected
output (fact_overlap.py), completeness on how much of that content came back, relevance on embedding cosines, style on
length, format and register, coherence on repetition, whole sentences and the base model's likelihood. Weights and
formula are those of LA-3.1. What it decides is in decidability.py: where rules and facts settle nothing,
the scores are an estimate and the judgement is undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.evaluator.judging.criteria import Criterion, broken_musts, scored
from services.evaluator.judging.decidability import settle
from services.evaluator.judging.fact_overlap import Kept, compare, terms
from services.evaluator.judging.judgement import WEIGHTS, Judgement, Verdict, estimated, failed, judged, overall, vetoed
from services.evaluator.judging.rules import Rule
from services.evaluator.judging.signals import Signals
from services.evaluator.judging.style_features import coherent_form, repetition, stylistic_form
from services.evaluator.judging.text import sentences, words

__all__ = ["NAME", "WEIGHTS", "Judged", "Judgement", "Verdict", "judge", "overall"]

NAME = "reference-judge/4"


class Judged(Protocol):
    """The parts of a golden sample that the judge reads."""

    @property
    def prompt(self) -> str: ...
    @property
    def expected_output(self) -> str: ...
    @property
    def rules(self) -> Mapping[Criterion, Sequence[Rule]]: ...


def judge(sample: Judged, answer: str, signals: Signals, tested: bool | None = None) -> Judgement:
    """Score the answer to the sample's prompt. The same input always gives the same judgement.

    `tested`: whether the sample's tests passed, where it has any. They count for more than any likeness.
    """
    if not words(answer):
        verdicts = dict.fromkeys(Criterion, Verdict(0.0, "the answer is empty"))
        return judged(verdicts, why="the answer is empty")
    kept = compare(sample.expected_output, sample.prompt, answer)
    # Embeddings find any text about the same matter close: without its words, closeness alone proves little.
    meaning = min(_meaning(sample.expected_output, signals), 2 * kept.recall)
    circling = repetition(answer, sample.expected_output)
    found = {
        Criterion.ACCURACY: _accuracy(kept, meaning),
        Criterion.RELEVANCE: _relevance(sample, answer, kept, signals, circling),
        Criterion.STYLE: stylistic_form(sample.expected_output, answer, circling),
        Criterion.COMPLETENESS: _completeness(kept, meaning),
        Criterion.COHERENCE: _coherence(sample, answer, signals, circling),
    }
    rules = sample.rules
    verdicts = {
        criterion: _with_rules(part, reason, scored(rules.get(criterion, ())), answer, kept.contradicts)
        for criterion, (part, reason) in found.items()
    }
    if tested:
        full = (Criterion.ACCURACY, Criterion.RELEVANCE, Criterion.COMPLETENESS)
        verdicts |= {criterion: Verdict(10.0, f"the tests pass; {verdicts[criterion].reason}") for criterion in full}
    settled = settle(sample, answer, tested)
    judgement = judged(verdicts, why=settled.why)
    if broken := broken_musts(rules, answer):
        return vetoed(judgement, broken)
    if settled.right is None:
        return estimated(judgement, settled.why)
    return judgement if settled.right else failed(judgement, settled.why)


def _with_rules(part: float, reason: str, rules: Sequence[Rule], answer: str, contradicts: bool) -> Verdict:
    """Satisfied rules vouch for half of a criterion, unless the answer contradicts the expected output; a broken
    one leaves at most half, by the part of the rules that holds."""
    if not rules:
        return Verdict(round(10 * part, 2), reason)
    broken = [rule.text for rule in rules if not rule.holds(answer)]
    if not broken and contradicts:
        return Verdict(round(10 * part, 2), f"all {len(rules)} rules hold, in a contradiction; {reason}")
    if not broken:
        return Verdict(round(10 * (0.5 + 0.5 * part), 2), f"all {len(rules)} rules hold; {reason}")
    held = 1 - len(broken) / len(rules)
    return Verdict(round(10 * 0.5 * part * held, 2), f"breaks {'; '.join(broken)}; {reason}")


def _accuracy(kept: Kept, meaning: float) -> tuple[float, str]:
    if kept.hard_recall is None:
        part = _ramp(0.7 * kept.recall + 0.3 * meaning, 0.25, 0.72)
        facts = f"keeps {kept.recall:.0%} of the expected content"
    else:
        part = _ramp(0.8 * kept.hard_recall + 0.2 * kept.recall, 0.15, 0.85)
        facts = f"keeps {kept.hard_recall:.0%} of the expected numbers and names"
    if not kept.adds:
        part, facts = 0.0, "says nothing of what was asked for"
    part *= 0.3 ** len(kept.exchanged) * 0.09 ** len(kept.reversed) * 0.9 ** min(len(kept.inventions), 3)
    notes = [facts]
    notes += [f"wrong: {text}" for text in (*kept.exchanged, *kept.reversed)]
    notes += [f"not in the expected output: {', '.join(kept.inventions)}"] if kept.inventions else []
    return part, "; ".join(notes)


def _completeness(kept: Kept, meaning: float) -> tuple[float, str]:
    part = _ramp(0.65 * kept.recall + 0.35 * meaning, 0.1, 0.8)
    if not kept.adds:
        part *= 0.2
    # A wrong number leaves its point uncovered; with no number right, or a statement turned round, little is left.
    wrong = max(2, len(kept.exchanged)) if kept.none_right else len(kept.exchanged)
    part *= 0.4**wrong * 0.16 ** len(kept.reversed)
    covered = f"covers {kept.recall:.0%} of the expected content (meaning {meaning:.2f})"
    return part, covered + (f"; lacks {', '.join(kept.missing[:8])}" if kept.missing else "")


def _relevance(sample: Judged, answer: str, kept: Kept, signals: Signals, circling: float) -> tuple[float, str]:
    to_expected = _ramp(signals.answer_expected, 0.15, 0.75)
    to_prompt = _ramp(signals.answer_prompt, 0.05, max(0.1, 0.8 * signals.expected_prompt))
    part = (0.7 * to_expected + 0.3 * to_prompt) * (1 - 0.5 * circling)
    reason = f"cosine {signals.answer_expected:.2f} to the expected output, {signals.answer_prompt:.2f} to the prompt"
    if not kept.adds and set(terms(answer)) <= set(terms(sample.prompt)):
        return 0.2 * part, f"only repeats the prompt; {reason}"
    return part, reason


def _coherence(sample: Judged, answer: str, signals: Signals, circling: float) -> tuple[float, str]:
    part, reason = coherent_form(sample.expected_output, answer, circling)
    if signals.answer_likelihood is None or signals.expected_likelihood is None:
        return part, reason
    fall = signals.expected_likelihood - signals.answer_likelihood
    likely = max(1 - _ramp(fall, 1.3, 4.0), _ramp(signals.answer_likelihood, -4.5, -3.2))
    return part * likely, f"{reason}; log-likelihood {signals.answer_likelihood:.2f} a token"


def _meaning(expected: str, signals: Signals) -> float:
    """How well the expected sentences are met by closest sentences of the answer, by content words, in [0, 1]."""
    sizes = [len(words(sentence)) for sentence in sentences(expected)]
    sizes = [size if size > 2 else 0 for size in sizes] if any(size > 2 for size in sizes) else sizes
    met = [_ramp(cosine, 0.35, 0.85) for cosine in signals.coverage]
    if not sum(sizes) or len(met) != len(sizes):
        return _ramp(signals.answer_expected, 0.35, 0.85)
    by_sentence = sum(size * m for size, m in zip(sizes, met, strict=True)) / sum(sizes)
    return max(by_sentence, _ramp(signals.answer_expected, 0.45, 0.9))


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to low, 1 from high, linear between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
