"""Compiling a caller's pattern within bounds, and searching with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic_core import SchemaError, SchemaValidator, core_schema

from linear_regex.translation import UnsuitablePattern, translate

MAX_CHARACTERS = 400
"""Length of a pattern."""
MAX_STEPS = 256
"""Steps that one character of text may cost: the pattern's size after its counted repeats are written out.

At this bound the slowest known pattern takes about 0.15 s for 8,000 characters, and compiling takes up to 0.25 s.
"""


@dataclass(frozen=True, eq=False)
class Pattern:
    """A compiled pattern. `steps` bounds what one character of text costs."""

    text: str
    steps: int
    _engine: SchemaValidator

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in the text, as `re.search` would find it."""
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # the engine takes no half surrogate pairs
        return self._engine.isinstance_python(text)


def compile_pattern(pattern: str, *, at_start: bool = False, ignore_case: bool = False) -> Pattern:
    """A pattern in Python's syntax, as `re.search` takes it (or `re.match`, with `at_start`).

    It gives `re`'s answers, with these exceptions: in `\\b` combining marks count as parts of a word, and case is
    ignored by Unicode's simple case folding, which keeps the Turkish dotless i apart from i.

    Raises:
        UnsuitablePattern: not a regular expression, too long or too large, or made with what no linear-time engine
            can match: lookaround, references to groups, conditions, atomic groups. The message names it.
    """
    if len(pattern) > MAX_CHARACTERS:
        raise UnsuitablePattern(f"it has {len(pattern)} characters; at most {MAX_CHARACTERS}")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsuitablePattern(f"not a regular expression: {error}") from None
    translated, steps = translate(pattern, MAX_STEPS)
    flags = "(?i)" if ignore_case else ""
    anchor = r"\A" if at_start else ""
    schema = core_schema.str_schema(pattern=f"{flags}{anchor}(?:{translated})", regex_engine="rust-regex", strict=True)
    try:
        return Pattern(pattern, steps, SchemaValidator(schema))
    except SchemaError as error:
        raise UnsuitablePattern(f"the linear-time engine does not take it: {str(error).strip()[-200:]}") from None
