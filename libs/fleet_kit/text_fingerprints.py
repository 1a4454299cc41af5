"""Fingerprints of texts: what two services compare to find equal or similar texts without showing each other the texts.

Equal digests: two texts are equal apart from case, white space and Unicode form. A signature shows how alike their
shingles are (MinHash; Broder, 1997): the share of equal places estimates the Jaccard similarity, with a standard
error of at most 1 / (2 * sqrt(PERMUTATIONS)) = 0.06. A shingle is three words in a row; a letter of a script that
puts no spaces between words counts as a word.

Only who compares needs numpy and rensa: this module is not part of `import fleet_kit`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

__all__ = [
    "PERMUTATIONS",
    "SCHEME",
    "SEPARATORS",
    "WHITE_SPACE",
    "band_keys",
    "digest",
    "exact_form",
    "shingle_hashes",
    "signatures",
    "signatures_of_hashes",
    "word_form",
]

Words = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]

PERMUTATIONS = 64
SHINGLE = 3
_SEED = 20_240_229
SCHEME = f"words{SHINGLE}-rensa{RMinHash.ALGORITHM_VERSION}-{PERMUTATIONS}"
"""Signatures of different schemes cannot be compared."""

WHITE_SPACE = "\\t-\\r \\x85\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
"""The code points with the Unicode property White_Space, as a class of a regular expression."""
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Myanmar, Khmer, Kana and Han: each letter counts as a word."""

SEPARATORS = "\x1d-\x1f"
"""Control characters between the texts of a record, as a class: what they part has its own beginning and end."""

_SPACES = re.compile(f"[{WHITE_SPACE}]+")
_SEPARATED = re.compile(f" ?([{SEPARATORS}]) ?")
_SPACELESS = re.compile(f"([{SPACELESS}])")

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


def exact_form(text: str) -> str:
    """NFC, lower case, each run of white space one space, none beside `SEPARATORS`: what `digest` takes."""
    spaced = _SPACES.sub(" ", unicodedata.normalize("NFC", text).lower())
    return _SEPARATED.sub(r"\1", spaced).strip(" ")


def digest(text: str) -> bytes:
    """SHA-256 of the exact form, 32 bytes."""
    return hashlib.sha256(exact_form(text).encode()).digest()


def word_form(text: str) -> str:
    """NFKC, lower case, words with one space between them: what shingles are cut from."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(character if _in_word(character) else " " for character in lowered)
    return " ".join(_SPACELESS.sub(r" \1 ", kept).split())


@cache
def _in_word(character: str) -> bool:
    # Signs of arithmetic and of currency too: a sum is another question than a difference.
    category = unicodedata.category(character)
    return category[0] in "LMN" or category in ("Sm", "Sc")


def signatures(texts: Sequence[str]) -> Signatures:
    """One signature a text, (len(texts), PERMUTATIONS). Texts without any word share the signature of nothing."""
    encoded = [word_form(text).encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    return signatures_of_hashes(*shingle_hashes(np.frombuffer(b"".join(encoded), np.uint8), offsets))


def signatures_of_hashes(hashes: Words, rows: Words) -> Signatures:
    """Signatures of what `shingle_hashes` gave."""
    if len(rows) == 1:
        return np.empty((0, PERMUTATIONS), np.uint32)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, rows, PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), np.uint32)


def band_keys(signatures: Signatures, bands: int) -> Words:
    """Keys for locality-sensitive hashing (Indyk and Motwani, 1998), (rows, bands).

    Two signatures that agree in all places of a band share its key; the same places in another band give another one.
    """
    parts = signatures.reshape(len(signatures), bands, PERMUTATIONS // bands).astype(np.uint64)
    keys = np.arange(1, bands + 1, dtype=np.uint64) * np.uint64(_BASE) + np.zeros_like(parts[:, :, 0])
    for place in range(parts.shape[2]):
        keys = (keys ^ parts[:, :, place]) * np.uint64(0xFF51AFD7ED558CCD)
        keys ^= keys >> np.uint64(32)
    return keys


def shingle_hashes(text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[Words, Words]:
    """64-bit hashes of the shingles of many texts at once.

    Args:
        text: word forms in UTF-8, one behind the other.
        offsets: where each text begins, and where the last one ends, (texts + 1,).

    Returns:
        The hashes, and where each text's begin among them, (texts + 1,). A text of one or two words is one shingle.
    """
    starts, ends, first = _words(text, offsets)
    words = np.diff(first)
    count = np.where(words >= SHINGLE, words - SHINGLE + 1, np.minimum(words, 1))
    rows = np.zeros(len(count) + 1, np.int64)
    np.cumsum(count, out=rows[1:])
    row = np.repeat(np.arange(len(count)), count)
    begin = first[:-1][row] + np.arange(rows[-1]) - rows[:-1][row]
    end = begin + np.minimum(words[row], SHINGLE) - 1
    return _substring_hashes(text, starts[begin], ends[end]), rows.astype(np.uint64)


def _words(
    text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where words start and end, and the number of the first word of each text, (texts + 1,)."""
    letter = np.zeros(len(text) + 2, bool)
    letter[1:-1] = text != ord(" ")
    bounds = np.zeros(len(text) + 1, bool)
    bounds[offsets] = True
    starts = np.nonzero(letter[1:] & (~letter[:-1] | bounds))[0]
    ends = np.nonzero(letter[:-1] & (~letter[1:] | bounds))[0]
    return starts, ends, np.searchsorted(starts, offsets)


def _substring_hashes(text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Words:
    """Polynomial hashes modulo 2^64 from prefix sums, then the finaliser of splitmix64 (Steele et al., 2014)."""
    if not len(starts):
        return np.empty(0, np.uint64)
    powers, unshift = (_powers(base, len(text).bit_length())[: len(text)] for base in (_BASE, _INVERSE))
    prefix = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(powers * (text.astype(np.uint64) + np.uint64(1)), out=prefix[1:])
    mixed = (prefix[ends] - prefix[starts]) * unshift[starts]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


@lru_cache(maxsize=4)
def _powers(base: int, bits: int) -> Words:
    """The first 2**bits powers of a base modulo 2^64, from the first on."""
    return np.cumprod(np.full(1 << bits, base, np.uint64), dtype=np.uint64)
