"""Words of an answer that stand where the expected output has others: a wrong entity, two that changed places. Pure.

A synonym looks the same, since words alone cannot tell them apart: what is found here is a reason to abstain.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from services.evaluator.judging.fact_overlap import STOP_STEMS, clauses, stem, terms
from services.evaluator.judging.text import words
from services.evaluator.judging.vocabulary import ARTICLES, NEGATIONS, PREPOSITIONS

NEAR = 0.4
"""Overlap of two clauses' content words from which one is taken for the other's counterpart."""
_DENIALS = frozenset({stem(word) for word in NEGATIONS} | NEGATIONS | {stem("nichts")})


def place_doubt(expected: str, answer: str, prompted: set[str], rules: set[str]) -> str:
    """Where a clause comes back with one of its words exchanged, moved to another clause, or in another order.

    prompted: terms of the prompt. rules: terms that the sample's owner lets stand for those of the expected output.
    """
    return (
        _exchanged_in_place(expected, answer, prompted | rules)
        or _exchanged_in_clause(expected, answer, prompted | rules)
        or _moved(expected, answer)
    )


def content(text: str) -> list[str]:
    """The text's distinct content terms in their order."""
    return [term for term in dict.fromkeys(terms(text)) if term not in STOP_STEMS]


def is_known(term: str, known: set[str]) -> bool:
    """Whether one of the known terms is the term or a form of it: `certif` and `certificat`, but no other compound
    with the same head (`harbourmast`, `harbourpilot`)."""
    return term in known or (len(term) >= 6 and any(_is_form(term, other) for other in known))


def _is_form(one: str, other: str) -> bool:
    common = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shorter, longer = sorted((len(one) - common, len(other) - common))
    return common >= 6 and shorter <= 2 and longer <= 5


def _exchanged_in_clause(expected: str, answer: str, known: set[str]) -> str:
    answered = {clause: found for clause in clauses(answer) if (found := content(clause))}
    everywhere, in_answer = set(content(expected)), set(content(answer))
    for clause in clauses(expected):
        wanted = content(clause)
        if len(wanted) < 2 or not answered:
            continue
        counterpart = max(answered, key=lambda text: _overlap(wanted, answered[text]))
        nearest = answered[counterpart]
        near = _overlap(wanted, nearest) >= NEAR
        lost = [term for term in wanted if not is_known(term, set(nearest))]
        put = [term for term in nearest if not is_known(term, set(wanted))]
        if near and lost and [term for term in put if term not in known]:
            return f"has {put[0]!r} where {lost[0]!r} is expected"
        # Two that changed places are both in both texts; that the prompt has them too vouches for neither.
        came = [term for term in put if term in everywhere]
        went = [term for term in lost if term in in_answer]
        if near and came and went:
            return f"has {came[0]!r} where {went[0]!r} is expected, which is elsewhere in the answer"
        if not lost and _reordered(clause, counterpart):
            return f"has the words of {clause.strip()!r} in another order"
    return ""


def _reordered(clause: str, counterpart: str) -> bool:
    """Whether the clause's words come back in another order, and not only with one prepositional phrase elsewhere.

    Such a phrase carries its part in the sentence with it (`every week the caretaker ...`); subject and object, in
    their order alone, do not.
    """
    leads, others = _leads(clause), _leads(counterpart)
    wanted, answered = [term for term in leads if term in others], [term for term in others if term in leads]
    for place, term in enumerate(answered):
        if term != wanted[place]:
            break
    else:
        return False
    end = len(wanted) - next(n for n in range(len(wanted)) if wanted[-1 - n] != answered[-1 - n])
    cut = wanted.index(answered[place])
    before, behind = wanted[place:cut], wanted[cut:end]
    if answered[place:end] != behind + before:
        return True
    heads = (before[0], behind[0])
    return any(leads[head] != others[head] for head in heads) or not any(leads[head] for head in heads)


def _leads(clause: str) -> dict[str, str]:
    """The clause's content terms in their order, each with the preposition that it follows, articles aside."""
    found: dict[str, str] = {}
    lead = ""
    for word in words(clause):
        if word in PREPOSITIONS:
            lead = word
        elif word not in ARTICLES:
            for term in terms(word):
                if term not in STOP_STEMS:
                    found.setdefault(term, lead)
                    lead = ""
            lead = ""
    return found


def _exchanged_in_place(expected: str, answer: str, known: set[str]) -> str:
    """A word or two of the expected output with words from nowhere in their place, the same words around them."""
    wanted, answered = terms(expected), terms(answer)
    blocks = SequenceMatcher(None, wanted, answered, autojunk=False).get_opcodes()
    for kind, start, end, begun, ended in blocks:
        if kind != "replace" or end - start > 3 or ended - begun > 3:
            continue
        lost = [term for term in wanted[start:end] if term not in STOP_STEMS]
        put = [t for t in answered[begun:ended] if t not in STOP_STEMS and not is_known(t, known | set(wanted))]
        if lost and put:
            return f"has {put[0]!r} where {lost[0]!r} is expected"
    return ""


def _moved(expected: str, answer: str) -> str:
    """A clause of the expected output of which a part stands alone in the answer, and a part beside another clause's.

    What one clause alone has is its mark; two clauses joined as they are, or one clause in two, moves nothing.
    """
    wanted = [_company(clause) for clause in clauses(expected)]
    marks = [clause - {t for other in wanted if other is not clause for t in other} for clause in wanted]
    answered = [_company(clause) for clause in clauses(answer)]
    for place, own in enumerate(marks):
        homes = [clause for clause in answered if clause & own]
        for clause in homes:
            apart = [t for home in homes if home is not clause for t in (home & own) - clause]
            others = [mark for at, mark in enumerate(marks) if at != place and mark & clause]
            if apart and others:
                beside = min(others[0] & clause)
                return f"has {min(clause & own)!r} and {min(apart)!r} in two statements, one with {beside!r}"
    return ""


def _company(clause: str) -> set[str]:
    """A clause's content terms, and what denies."""
    return {term for term in terms(clause) if term not in STOP_STEMS or term in _DENIALS}


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    return len(set(one) & set(other)) / len(set(one) | set(other))
