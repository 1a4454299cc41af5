"""The forms of whole columns of texts that duplicates are found by; `fleet_kit.prints` has them for single texts."""

import numpy as np
import polars as pl
import pyarrow as pa

from fleet_kit.prints import SPACELESS, WHITE_SPACE, Words, shingle_hashes

_MESSAGE, _PART, _TURN = "\x1d", "\x1e", "\x1f"


def exact_forms(values: pl.Series) -> pl.Series:
    """`prints.exact_form` of every text, and of each part of a `joined` one."""
    lowered = values.str.normalize("NFC").str.to_lowercase()
    spaced = lowered.str.replace_all(f"[{WHITE_SPACE}]+", " ")
    return spaced.str.replace_all(f" ?([{_MESSAGE}-{_TURN}]) ?", "$1").str.strip_chars(" ")


def word_forms(values: pl.Series) -> pl.Series:
    """`prints.word_form` of every text."""
    lowered = values.str.normalize("NFKC").str.to_lowercase()
    words = lowered.str.replace_all(r"[^\p{L}\p{M}\p{N}\p{Sm}\p{Sc}]+", " ")
    if words.str.contains(f"[{SPACELESS}]").any():
        words = words.str.replace_all(f"([{SPACELESS}])", " $1 ").str.replace_all(" +", " ")
    return words.str.strip_chars(" ")


def hashes_of(forms: pl.Series) -> tuple[Words, Words]:
    """`prints.shingle_hashes` of word forms."""
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
