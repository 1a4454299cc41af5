"""Whether two versions were judged alike: same golden content, same judge, same longest answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.registry.comparing.evidence import Evidence
from services.registry.family import Evaluation


@dataclass(frozen=True, slots=True)
class FairPair:
    """Two evaluations whose scores compare, sample by sample."""

    new: Evaluation
    old: Evaluation


def fair_pair(new: Evidence, old: Evidence) -> FairPair | str:
    """The newest two comparable evaluations of two versions, or why there are none and what would help."""
    for one, other in ((new, old), (old, new)):
        if not one.evaluations:
            return f"{one.adapter_id} was never judged; request an evaluation of it as {other.adapter_id} had"
    pairs = [
        FairPair(mine, theirs)
        for mine in new.evaluations
        for theirs in old.evaluations
        if mine.scores and theirs.scores and not unlike(mine, theirs)
    ]
    if pairs:
        return max(pairs, key=lambda pair: (min(pair.new.scored_at, pair.old.scored_at), pair.new.scored_at))
    mine, theirs = new.evaluations[-1], old.evaluations[-1]
    if mine.scores is None or theirs.scores is None:
        late = new if mine.scores is None else old
        return f"{late.adapter_id} was judged by a release that stored no scores by sample; evaluate it again"
    return f"{unlike(mine, theirs)}; evaluate both again with the same"


def unlike(new: Evaluation, old: Evaluation) -> str:
    """What differs in how two versions were judged; empty for nothing."""
    differences = []
    if new.golden_sha256 != old.golden_sha256:
        differences.append(f"golden data sets differ ({_golden(new)} and {_golden(old)})")
    if new.judge != old.judge:
        differences.append(f"judges differ ({new.judge} and {old.judge})")
    if new.max_tokens != old.max_tokens:
        differences.append(f"longest answers differ ({new.max_tokens} and {old.max_tokens} tokens)")
    return "; ".join(differences)


def _golden(evaluation: Evaluation) -> str:
    return f"{evaluation.golden_dataset_id}@{evaluation.golden_version or evaluation.golden_sha256[:12]}"
