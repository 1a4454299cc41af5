"""Facts of a text: numbers, names and content words, and where an answer keeps, lacks or contradicts them. Pure.

Lexical on purpose: a number or a name is either there or not, which no embedding can decide. English and German.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations, pairwise

from services.evaluator.judging.number_words import to_digits
from services.evaluator.judging.quantities import UNITS as UNIT_NAMES
from services.evaluator.judging.style_features import language
from services.evaluator.judging.text import fold, plain, sentences, words
from services.evaluator.judging.vocabulary import MONTHS, NEGATIONS, STOPWORDS, SUFFIXES, TITLES, UNITS


def stem(word: str) -> str:
    """Crude common stem of an inflected word, at least four letters long; numbers and codes stay as they are."""
    if not word.isalpha():
        return word
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 4:
            return word[: -len(suffix)]
    return word


def terms(text: str) -> list[str]:
    """The text's words in order, comparable: numbers in digits, units in one spelling, other words stemmed."""
    return [UNITS.get(term, term) for word in words(to_digits(fold(text))) for term in _spread(word)]


def _spread(word: str) -> list[str]:
    """`15%` is two terms, `9:30` and `§123` one; everything else its stem."""
    if word[:1].isdigit() and word.endswith("%"):
        return [word[:-1], "%"]
    parts = [word] if any(c.isdigit() for c in word) else word.split("-")
    return [part if part in UNITS else stem(part.removesuffix("'s")) for part in parts]


def is_number(term: str) -> bool:
    """Whether the term is a quantity, time, paragraph or date: digits with at most a mark before or a letter behind."""
    return re.fullmatch(r"§*\d+(?:[.,:/]\d+)*[a-z]?", term) is not None


@dataclass(frozen=True)
class Fact:
    """One thing an answer should carry. weight: 3 a number, 2.5 a name or code, 1 another content word; what the
    prompt has already counts a fifth, since repeating the question answers nothing."""

    term: str
    kind: str  # number, name, word
    weight: float
    prompted: bool  # the prompt has it

    @property
    def hard(self) -> bool:
        return self.kind != "word" and not self.prompted


_WEIGHTS = {"number": 3.0, "name": 2.5, "word": 1.0}


def facts(expected: str, prompt: str) -> tuple[Fact, ...]:
    """The distinct facts of the expected output, in order."""
    prompted, named = set(terms(prompt)), names(expected)
    found: dict[str, Fact] = {}
    for term in terms(expected):
        kind = "number" if is_number(term) else "name" if term in named else "word"
        if term in found or (kind == "word" and (term in STOP_STEMS or len(term) < 2)):
            continue
        known = _has_term(term, prompted)
        found[term] = Fact(term, kind, _WEIGHTS[kind] * (0.2 if known else 1.0), known)
    return tuple(found.values())


STOP_STEMS = frozenset(stem(word) for word in STOPWORDS) | STOPWORDS


_NO_NAMES = STOP_STEMS | TITLES | UNIT_NAMES.keys()


def names(text: str) -> set[str]:
    """Terms written as names: capitals inside a sentence (unless the text capitalises its nouns, as German does),
    words with digits or two capitals anywhere."""
    found: set[str] = set()
    for sentence in sentences(text):
        written = plain(sentence).split()
        capitalised = [w for w in written[1:] if w.strip("\"'([").istitle()]
        nouns = len(capitalised) > 0.25 * len(written) and language(text) != "English"
        for place, word in enumerate(written):
            bare = word.strip("\"'()[].,:;!?")
            coded = any(c.isdigit() for c in bare) or sum(c.isupper() for c in bare) > 1
            if bare and (coded or (place > 0 and bare[:1].isupper() and not nouns)):
                found.update(term for term in terms(bare) if term not in _NO_NAMES)
    return found


@dataclass(frozen=True)
class Kept:
    """How an answer stands to the facts of the expected output. recall and hard_recall are weighted, in [0, 1]; with
    no hard fact at all, hard_recall is None. exchanged (a number for another), reversed (a whole statement turned
    round) and inventions (numbers from nowhere) are short descriptions."""

    recall: float
    hard_recall: float | None
    missing: tuple[str, ...]
    adds: bool  # keeps anything that the prompt does not have already
    exchanged: tuple[str, ...]
    none_right: bool  # every quantity of the expected output was exchanged
    reversed: tuple[str, ...]
    inventions: tuple[str, ...]

    @property
    def contradicts(self) -> bool:
        return bool(self.exchanged or self.reversed)


def compare(expected: str, prompt: str, answer: str) -> Kept:
    """What the answer keeps, lacks, contradicts and invents."""
    wanted, answered = facts(expected, prompt), terms(answer)
    present = set(answered)
    held = [fact for fact in wanted if _has_term(fact.term, present)]
    hard = [fact for fact in wanted if fact.hard]
    total, hard_total = sum(f.weight for f in wanted), sum(f.weight for f in hard)
    known = set(terms(expected)) | set(terms(prompt))
    exchanged = tuple(_exchanged(expected, answer))
    return Kept(
        recall=sum(f.weight for f in held) / total if total else float(bool(answered)),
        hard_recall=sum(f.weight for f in hard if f in held) / hard_total if hard_total else None,
        missing=tuple(f.term for f in wanted if f not in held and not f.prompted),
        exchanged=exchanged,
        none_right=bool(exchanged) and len(exchanged) == len(_quantities(expected)),
        reversed=(*_swapped(expected, answer), *_reversed(expected, answer)),
        adds=any(not f.prompted for f in held) or all(f.prompted for f in wanted),
        inventions=tuple(dict.fromkeys(t for t in answered if _counts(t) and t not in known)),
    )


def _counts(term: str) -> bool:
    """A number worth calling invented: not one that numbers a list or counts, as in `two people`."""
    return is_number(term) and not (term.isdigit() and len(term) == 1)


def _has_term(term: str, present: set[str]) -> bool:
    if term in present:
        return True
    long = len(term) >= 6 and term.isalpha()  # compounds and derivations: `certify` / `certificate`
    return long and any(len(other) >= 6 and other[:6] == term[:6] for other in present)


def _quantities(text: str) -> dict[str, set[str]]:
    """Which numbers stand before which unit or noun."""
    out: dict[str, set[str]] = {}
    for sentence in sentences(text):
        for number, noun in pairwise(terms(sentence)):
            if is_number(number) and not is_number(noun) and noun not in STOP_STEMS:
                out.setdefault(noun, set()).add(number)
    return out


def _exchanged(expected: str, answer: str) -> list[str]:
    """`45 days` became `90 days`: the same noun, none of the expected numbers."""
    wanted, answered = _quantities(expected), _quantities(answer)
    return [
        f"{'/'.join(sorted(answered[noun]))} {noun} instead of {'/'.join(sorted(numbers))}"
        for noun, numbers in wanted.items()
        if noun in answered and not answered[noun] & numbers
    ]


def _swapped(expected: str, answer: str) -> list[str]:
    """`15% before March, 8% after` became `8% before March, 15% after`: two numbers of one noun, each in the words
    that the other came with."""
    wanted, answered = _settings(expected), _settings(answer)
    return [
        f"{first} and {second} {noun} changed places"
        for noun, numbers in _quantities(expected).items()
        for first, second in combinations(sorted(numbers & set(answered) & set(wanted)), 2)
        if _overlap(answered[first], wanted[second]) > _overlap(answered[first], wanted[first])
        and _overlap(answered[second], wanted[first]) > _overlap(answered[second], wanted[second])
    ]


def _settings(text: str) -> dict[str, set[str]]:
    """Every number with the content words of its clauses, without other numbers."""
    out: dict[str, set[str]] = {}
    for clause in clauses(text):
        content = _content(clause)
        for number in filter(is_number, content):
            out.setdefault(number, set()).update(term for term in content if not is_number(term))
    return out


def _reversed(expected: str, answer: str) -> list[str]:
    """A clause came back with its negation dropped or added."""
    found = []
    stated = [(c, _content(c), negations(c)) for c in clauses(answer) if not c.rstrip().endswith("?")]
    for clause in clauses(expected):
        mine, count = _content(clause), negations(clause)
        if not mine:
            continue
        nearest = max(stated, key=lambda other: _overlap(mine, other[1]), default=None)
        if nearest and _overlap(mine, nearest[1]) >= 0.6 and count % 2 != nearest[2] % 2:
            found.append(f"`{nearest[0].strip()}` reverses `{clause.strip()}`")
    if None not in (yes := (yes_or_no(expected), yes_or_no(answer))) and yes[0] != yes[1]:
        found.append(f"begins with {'yes' if yes[1] else 'no'}")
    return found


_BOUND = re.compile(
    r"\b(?:no|not|nicht)\s+(?:more|less|later|earlier|longer|fewer|mehr|weniger|später|länger)\s+(?:than|als)\b"
    r"|\bnot\s+only\b|\bnicht\s+nur\b|\bno\s+matter\b"
)


_DAY = re.compile(rf"(?<=\d)\.\s+(?=(?:{'|'.join(sorted(MONTHS))})\b)", re.I)


def clauses(text: str) -> list[str]:
    """Parts of sentences between commas, colons and semicolons; the point of `15. Februar` ends none."""
    whole = sentences(_DAY.sub(" ", text))
    return [part for sentence in whole for part in re.split(r"[;:,]\s", sentence) if part.strip()]


def _content(clause: str) -> set[str]:
    return {term for term in terms(clause) if term not in STOP_STEMS and term not in NEGATIONS}


def negations(text: str) -> int:
    """How often the text negates; `no more than` and its like do not."""
    bare = _BOUND.sub(" ", fold(text))
    return sum(word in NEGATIONS or word.endswith("n't") for word in words(bare))


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


def yes_or_no(text: str) -> bool | None:
    """Whether the text begins with a plain yes (True) or no (False)."""
    first = words(fold(text))[:1]
    return {"yes": True, "ja": True, "no": False, "nein": False}.get(first[0]) if first else None
