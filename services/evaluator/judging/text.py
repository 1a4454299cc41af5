"""Plain-text normalisation shared by the criteria rules and the reference judge. Pure; English and German."""

from __future__ import annotations

import re
import unicodedata

_TYPOGRAPHY = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "‚": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "«": '"',
        "»": '"',
        "‐": "-",
        "‑": "-",
        "–": "-",
        "—": "-",
        "−": "-",
        "\u00ad": "",
    }
)
_THOUSANDS = re.compile(r"(?<=\d)[,'\u202f ](?=\d{3}(?!\d))")
_SECTION = re.compile(r"§\s+(?=[\d§])")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"§*\d+(?:[.,:/]\d+)*[a-z]?%?(?![^\W_])|[^\W_]+(?:['-][^\W_]+)*", re.UNICODE)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+(?=[\"'(\[]?[^\W_a-z])|\n+")


def fold(text: str) -> str:
    """Canonical form for comparison: NFKC, straight quotes and hyphens, `1,200` → `1200`, `§ 5` → `§5`,
    one space for any run of white space, casefolded."""
    return plain(text).casefold()


def plain(text: str) -> str:
    """`fold` without the casefolding, for what needs capitals."""
    text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    text = _SECTION.sub("§", _SPACE.sub(" ", text).strip())
    return _THOUSANDS.sub("", text)


def phrase_at(phrase: str, text: str) -> bool:
    """Whether folded `text` contains folded `phrase` as whole words: `45` is not in `145`, nor `5` in `4.5`."""
    start = 0
    while (found := text.find(phrase, start)) >= 0:
        if _edge_free(text, found, -1) and _edge_free(text, found + len(phrase), +1):
            return True
        start = found + 1
    return False


def _edge_free(text: str, cut: int, side: int) -> bool:
    """No word or number runs across the `cut`. side -1: the phrase starts there, +1: it ended there."""
    inner, outer = (cut, cut - 1) if side < 0 else (cut - 1, cut)
    if not (0 <= outer < len(text)) or not text[inner].isalnum():
        return True
    if text[outer].isalnum():
        return False
    beyond = outer + side
    runs_on = text[inner].isdigit() and text[outer] in ".," and 0 <= beyond < len(text) and text[beyond].isdigit()
    return not runs_on


def words(text: str) -> list[str]:
    """Words and numbers of folded text, in order; `§123`, `12.5%` and `forty-five` are one word each."""
    return _WORD.findall(fold(text))


def sentences(text: str) -> list[str]:
    """Sentences in order, without empty ones. A line break ends a sentence too (lists)."""
    parts = _SENTENCE_END.split(unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY))
    return [part.strip() for part in parts if part and any(c.isalnum() for c in part)]
