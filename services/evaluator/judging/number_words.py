"""Cardinal numbers written as words, English and German, 0 to 999,999. Pure.

Here and not through a library: of those that are kept up, num2words only writes numbers, and quantulum3 reads English
alone. tests/unit/evaluator/test_quantities.py writes every number below 1,000 and reads it back.
"""

from __future__ import annotations

import re


def _words(text: str) -> list[str]:
    return text.split()


_ONES = _words("one two three four five six seven eight nine")
_TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_EINER = _words("ein zwei drei vier fünf sechs sieben acht neun")
_ZEHNER = _words("zwanzig dreissig vierzig fünfzig sechzig siebzig achtzig neunzig")
_ZEHN = _words("zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn")

_ENGLISH = (
    dict(zip(_ONES, range(1, 10), strict=True))
    | dict(zip(_TEENS, range(10, 20), strict=True))
    | dict(zip(_TENS, range(20, 100, 10), strict=True))
)
_GERMAN = (
    dict(zip(_EINER, range(1, 10), strict=True))
    | dict(zip(_ZEHN, range(10, 20), strict=True))
    | dict(zip(_ZEHNER, range(20, 100, 10), strict=True))
    | {"eins": 1}
)
AMBIGUOUS = frozenset(_words("one ein eine einen einem einer eines eins null acht"))
"""Alone they are articles, pronouns or other words too (`acht` is attention): they count before a unit only."""
_ALONE = {"zero": 0, "dozen": 12, "dutzend": 12}

_SUB100 = rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_ONES)}))?|{'|'.join(_TEENS)}|{'|'.join(_ONES)})"
_SUB1000 = rf"(?:{_SUB100} hundred(?: (?:and )?{_SUB100})?|{_SUB100})"
_ENGLISH_NUMBER = re.compile(rf"\b{_SUB1000}(?: thousand(?:,? (?:and )?{_SUB1000})?)?\b|\b(?:zero|dozen|dutzend)\b")
_EINS = "|".join([*_EINER, "eins"])
_UNTER_100 = rf"(?:(?:{'|'.join(_EINER)})und(?:{'|'.join(_ZEHNER)})|{'|'.join(_ZEHNER)}|{'|'.join(_ZEHN)}|{_EINS})"
_UNTER_1000 = rf"(?:(?:{'|'.join([*_EINER, *_ZEHN])})?hundert(?:und)?{_UNTER_100}?|{_UNTER_100})"
_GERMAN_NUMBER = re.compile(rf"\b(?:{_UNTER_1000}?tausend(?:und)?{_UNTER_1000}?|{_UNTER_1000})\b")


def to_digits(folded: str) -> str:
    """Folded text (text.fold) with its number words as digits: `fünfundvierzig` and `forty-five` → `45`."""
    return _GERMAN_NUMBER.sub(_german, _ENGLISH_NUMBER.sub(_english, folded))


def value_of(word: str) -> int | None:
    """The number that an ambiguous word is before a unit: `ein Tag`, `acht Wochen`, `one day`."""
    if word not in AMBIGUOUS:
        return None
    return {"null": 0, "acht": 8}.get(word, 1)


def _english(found: re.Match[str]) -> str:
    text = found[0]
    if text in AMBIGUOUS:
        return text
    if text in _ALONE:
        return str(_ALONE[text])
    thousands, _, rest = text.partition(" thousand") if " thousand" in text else ("", "", text)
    return str(1000 * _hundreds(thousands) + _hundreds(rest))


def _hundreds(text: str) -> int:
    total = 0
    for word in re.split(r"[ ,-]+", text):
        total = total * 100 if word == "hundred" else total + _ENGLISH.get(word, 0)
    return total


def _german(found: re.Match[str]) -> str:
    text = found[0]
    if text in AMBIGUOUS:
        return text
    thousands, mark, rest = text.partition("tausend")
    if not mark:
        return str(_hunderter(text))
    return str(1000 * (_hunderter(thousands) if thousands else 1) + _hunderter(rest.removeprefix("und")))


def _hunderter(text: str) -> int:
    hundreds, mark, rest = text.partition("hundert")
    if not mark:
        hundreds, rest = "", text
    total = (_GERMAN[hundreds] if hundreds else 1) * 100 if mark else 0
    rest = rest.removeprefix("und")
    ones, und, tens = rest.partition("und")
    if und:
        return total + _GERMAN[ones] + _GERMAN[tens]
    return total + (_GERMAN[rest] if rest else 0)
