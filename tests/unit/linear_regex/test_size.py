"""The size of a pattern is known before it is compiled, and bounds how long compiling takes."""

import time

import polars as pl
import pytest
from pydantic import ValidationError

from linear_regex import written_out
from services.trainer.datasets.filters.recipe import MAX_PATTERN_PARTS, FilterRecipe


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("abc", 3),
        ("a{3}", 3),
        ("a{2,5}b", 6),
        ("a{4,}", 5),
        (r"\w{10}", 40),
        (r"\p{Greek}{2}", 8),
        (r"\x{41}", 1),
        ("[a-z]{7}", 7),
        (r"[\w-]{2}", 10),
        ("[]a]{3}", 3),
        ("(?:a{10}){10}", 111),
        ("((a{9}){9}){9}", 820),
        (r"\({3}", 3),
        ("a|b", 3),
        ("(", 1),
        (")", 1),
        ("[", 1),
        ("\\", 1),
        ("{3}", 3),
        ("a{99999999999999999999}", 999_999_999),
    ],
)
def test_counted_repeats_are_written_out(pattern: str, parts: int) -> None:
    assert written_out(pattern) == pytest.approx(parts, rel=0.15, abs=1)


def recipe(*patterns: str) -> FilterRecipe:
    return FilterRecipe.model_validate(
        {"patterns": [{"name": f"p{n}", "pattern": one} for n, one in enumerate(patterns)]}
    )


@pytest.mark.parametrize(
    "pattern", [r"\w{1000}", r"(?:\w{100}){100}", r"(?:\p{L}{9}){99}", r"[\w\s]{400}", "(?:(?:a{99}){99}){99}"]
)
def test_patterns_that_take_long_to_compile_are_refused_uncompiled(pattern: str) -> None:
    started = time.process_time()
    with pytest.raises(ValidationError, match="at most 1024 together"):
        recipe(*[pattern] * 50)
    assert time.process_time() - started < 0.2  # was 20 s of the event loop


def test_the_largest_patterns_that_are_taken_compile_within_seconds() -> None:
    fifty = [r"\w{4}"] * 50
    assert MAX_PATTERN_PARTS / 2 < sum(map(written_out, fifty)) < MAX_PATTERN_PARTS
    started = time.process_time()
    assert len(recipe(*fifty).patterns) == 50
    assert time.process_time() - started < 5
    pl.Series(["x"]).str.contains(fifty[0])


def test_patterns_as_people_write_them_are_taken() -> None:
    recipe(
        r"(?i)\b(?:lorem|ipsum)\b",
        r"https?://\S+",
        r"\d{4}-\d{2}-\d{2}",
        r"[\w.+-]{1,30}@[\w-]+\.[a-z]{2,10}",
        r"^\s*$",
    )
