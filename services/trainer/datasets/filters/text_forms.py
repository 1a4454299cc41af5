"""The forms of whole columns of texts that duplicates are found by; `fleet_kit.text_fingerprints` has them of one."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa

from fleet_kit.text_fingerprints import SEPARATORS, SPACELESS, WHITE_SPACE, Words, shingle_hashes

_OTHER_SPACE = WHITE_SPACE.replace(" ", "", 1)
_WORD = r"\p{L}\p{M}\p{N}\p{Sm}\p{Sc}"
_NFKC = r"\x00-\x7f\x{c0}-\x{131}\x{2018}-\x{201f}"
"""Some letters and signs that NFKC leaves alone, wherever they stand: those of most texts."""
_MESSAGE, _PART, _TURN = "\x1d", "\x1e", "\x1f"


def exact_forms(values: pl.Series) -> pl.Series:
    """`text_fingerprints.exact_form` of every text."""
    # Each step is expensive, and most texts need none of it: they are found first, for a tenth of that.
    composed = _where(values, r"[^\x00-\x{2ff}]", lambda some: some.str.normalize("NFC"))
    lowered = composed.str.to_lowercase()
    runs = f"[{WHITE_SPACE}]{{2,}}|[{_OTHER_SPACE}]"
    spaced = _where(lowered, runs, lambda some: some.str.replace_all(f"[{WHITE_SPACE}]+", " "))
    parted = f" [{SEPARATORS}]|[{SEPARATORS}] "
    apart = _where(spaced, parted, lambda some: some.str.replace_all(f" ?([{SEPARATORS}]) ?", "$1"))
    return apart.str.strip_chars(" ")


def word_forms(values: pl.Series) -> pl.Series:
    """`text_fingerprints.word_form` of every text."""
    composed = _where(values, f"[^{_NFKC}]", lambda some: some.str.normalize("NFKC"))
    # A single space stays as it is: most of what is no word is one.
    words = composed.str.to_lowercase().str.replace_all(rf"[^{_WORD}]{{2,}}|[^{_WORD} ]", " ")
    spaced = _where(
        words,
        f"[{SPACELESS}]",
        lambda some: some.str.replace_all(f"([{SPACELESS}])", " $1 ").str.replace_all(" +", " "),
    )
    return spaced.str.strip_chars(" ")


def _where(values: pl.Series, pattern: str, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """The texts in which the pattern is found, changed; the others as they are."""
    at = values.str.contains(pattern).arg_true().to_numpy()
    if not len(at):
        return values
    order = np.arange(len(values))
    order[at] = len(values) + np.arange(len(at))
    return pl.concat([values, change(values.gather(at))], rechunk=True).gather(order)


def hashes_of(forms: pl.Series) -> tuple[Words, Words]:
    """`text_fingerprints.shingle_hashes` of word forms."""
    array = forms.to_arrow().cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return shingle_hashes(text[bounds[0] : bounds[-1]], bounds - bounds[0])


def joined(batch: pa.RecordBatch, by: str) -> pl.Series:
    """One text a record: its prompt's roles and messages, and with `by="record"` its kind and completions.

    What separates them is control characters, so that `a|bc` and `ab|c` stay different texts.
    """
    frame = pl.DataFrame(batch.select(["kind", "prompt", "completions"]))
    message = pl.element().struct.field("role") + pl.lit(_TURN) + pl.element().struct.field("content")
    text = pl.col("prompt").list.eval(message).list.join(_PART)
    if by == "record":
        text = pl.col("kind") + pl.lit(_MESSAGE) + text + pl.lit(_MESSAGE) + pl.col("completions").list.join(_PART)
    return frame.select(text.alias("text"))["text"]
