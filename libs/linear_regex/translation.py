"""From Python's syntax of regular expressions (docs: library/re.html) to that of Rust's `regex` crate (docs.rs/regex).

Only patterns that `re` compiles come here, so the walk need not look for syntax errors. Everything is written out
(characters as `\\x{…}`), since the two syntaxes give the same letters other meanings.
"""

from __future__ import annotations

from dataclasses import dataclass

_REFUSED_GROUPS = {
    "=": "a lookahead `(?=…)`", "!": "a lookahead `(?!…)`",
    "<=": "a lookbehind `(?<=…)`", "<!": "a lookbehind `(?<!…)`",
    "P=": "a reference to a group `(?P=…)`", "(": "a condition `(?(…)…)`",
    ">": "an atomic group `(?>…)`", "#": "a comment `(?#…)`",
}  # fmt: skip
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_WORD = r"\p{L}\p{N}_"  # str.isalnum and the underscore
_SPACE = r"\s\x1C-\x1F"  # str.isspace has the four separators, White_Space has not
_CLASSES = {
    "d": r"\d", "D": r"\D", "w": f"[{_WORD}]", "W": f"[^{_WORD}]", "s": f"[{_SPACE}]", "S": f"[^{_SPACE}]",
}  # fmt: skip
_CLASS_STEPS = {"d": 2, "D": 2, "w": 4, "W": 4, "s": 1, "S": 2}
_FLAGS = "ims"


class UnsuitablePattern(ValueError):
    """A pattern that is not supported here; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    steps: int
    end: bool = False
    """It is `$`: nothing but a line break can come after it."""


def translate(pattern: str, max_steps: int) -> tuple[str, int]:
    """The same pattern in the other syntax, and its steps: how many places in it one character is compared with.

    Raises UnsuitablePattern for what the other engine lacks, and for more than `max_steps`.
    """
    walk = _Walk(pattern, max_steps)
    part = walk.alternatives(multiline=False)
    return part.text, part.steps


class _Walk:
    def __init__(self, pattern: str, max_steps: int) -> None:
        self._pattern, self._at, self._max_steps = pattern, 0, max_steps

    def alternatives(self, multiline: bool) -> _Part:
        """Up to the closing parenthesis, or the end of the pattern. `multiline`: `$` ends a line."""
        branches: list[str] = []
        parts: list[_Part] = []
        steps = 1
        while self._at < len(self._pattern) and self._pattern[self._at] != ")":
            if self._take("|"):
                branches.append("".join(part.text for part in parts))
                parts = []
                continue
            if parts and parts[-1].end:
                raise UnsuitablePattern("something follows `$`, which ends the text")
            if self._pattern.startswith("(?", self._at) and (flags := self._global_flags()) is not None:
                parts.append(_Part(f"(?{flags})" if flags else "", 0))
                multiline |= "m" in flags
                continue
            part = self._repeated(self._atom(multiline))
            steps += part.steps
            if steps > self._max_steps:
                raise UnsuitablePattern(
                    f"it is too large: its repeats, written out, have more than {self._max_steps} parts"
                )
            parts.append(part)
        branches.append("".join(part.text for part in parts))
        return _Part("|".join(branches), steps)

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _until(self, end: str) -> str:
        start, self._at = self._at, self._pattern.index(end, self._at) + len(end)
        return self._pattern[start : self._at - len(end)]

    def _global_flags(self) -> str | None:
        """The flags of `(?im)`; None where a group begins. The pattern is then at what follows, or where it was."""
        letters, closed, _ = self._pattern[self._at + 2 :].partition(")")
        if not closed or not letters or not letters.isalpha():
            return None
        self._at += len(letters) + 3
        return _flags(letters)

    def _atom(self, multiline: bool) -> _Part:
        character = self._pattern[self._at]
        self._at += 1
        match character:
            case "(":
                return self._group(multiline)
            case "[":
                return self._set()
            case "\\":
                return self._escape()
            case "$" if not multiline:
                return _Part(r"(?:\n?\z)", 1, end=True)
            case "$" | "^" | ".":
                return _Part(character, 1)
            case _:
                return _Part(_literal(ord(character)), 1)

    def _group(self, multiline: bool) -> _Part:
        flags = ""
        if self._take("?P<"):
            self._until(">")
        elif self._take("?"):
            for sign, name in _REFUSED_GROUPS.items():
                if self._pattern.startswith(sign, self._at):
                    raise UnsuitablePattern(f"it has {name}, which no linear-time engine matches")
            letters = self._until(":")
            on, _, off = letters.partition("-")
            flags = _flags(on) + (f"-{_flags(off)}" if _flags(off) else "")
            multiline = (multiline or "m" in on) and "m" not in off
        inner = self.alternatives(multiline)
        self._at += 1
        return _Part(f"(?{flags}:{inner.text})", inner.steps)

    def _escape(self) -> _Part:
        letter = self._pattern[self._at]
        self._at += 1
        if letter in _CLASSES:
            return _Part(_CLASSES[letter], _CLASS_STEPS[letter])
        if letter in "bB":
            return _Part(f"\\{letter}", 1)
        if letter == "A":
            return _Part(r"\A", 1)
        if letter == "Z":
            return _Part(r"\z", 1)
        return _Part(_literal(self._escaped(letter)), 1)

    def _escaped(self, letter: str) -> int:
        """The code point of an escape whose letter was read."""
        if letter.isdigit():
            raise UnsuitablePattern(f"it has a reference to a group, or an octal number (`\\{letter}`)")
        if letter == "N":
            raise UnsuitablePattern("it has a character's name (`\\N{…}`): write the character")
        if letter in _HEX_DIGITS:
            digits = self._pattern[self._at : self._at + _HEX_DIGITS[letter]]
            self._at += len(digits)
            return int(digits, 16)
        return _CONTROLS.get(letter, ord(letter))

    def _set(self) -> _Part:
        negated = self._take("^")
        items: list[str] = []
        steps = 1
        first = True
        while first or self._pattern[self._at] != "]":
            first = False
            low = self._member()
            if isinstance(low, str):
                items.append(_CLASSES[low])
                steps += _CLASS_STEPS[low]
            elif self._pattern[self._at] == "-" and self._pattern[self._at + 1] != "]":
                self._at += 1
                high = self._member()
                if isinstance(high, str):
                    raise UnsuitablePattern("a range in a set ends with a class")
                items.append(f"{_literal(low)}-{_literal(high)}")
            else:
                items.append(_literal(low))
        self._at += 1
        return _Part(f"[{'^' if negated else ''}{''.join(items)}]", steps + len(items) // 4)

    def _member(self) -> int | str:
        """A character of a set as its code point, a class of characters as its letter."""
        character = self._pattern[self._at]
        self._at += 1
        if character != "\\":
            return ord(character)
        letter = self._pattern[self._at]
        self._at += 1
        if letter in _CLASSES:
            return letter
        return 8 if letter == "b" else self._escaped(letter)

    def _repeated(self, part: _Part) -> _Part:
        if self._at >= len(self._pattern):
            return part
        if self._pattern[self._at] in "*+?":
            sign, steps = self._pattern[self._at], part.steps + 1
            self._at += 1
        elif (counts := self._counts()) is not None:
            low, high = counts
            sign = f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"
            steps = max(part.steps, 1) * max(low + 1 if high is None else high, 1)
            if steps > self._max_steps:
                raise UnsuitablePattern(f"it is too large: {sign} of {part.steps} parts is over {self._max_steps}")
        else:
            return part
        if self._take("+"):
            raise UnsuitablePattern("it has a possessive repeat (`*+`, `++`, `?+`, `{…}+`)")
        self._take("?")  # how much a repeat takes is no matter where only the finding counts
        # In parentheses of its own: Rust reads `x{2}?` and the like as lazy, and may repeat what can be empty.
        return _Part(f"(?:{part.text}){sign}", steps)

    def _counts(self) -> tuple[int, int | None] | None:
        """The bounds of `{n,m}`; None where the brace is a plain character."""
        if self._pattern[self._at] != "{" or "}" not in self._pattern[self._at :]:
            return None
        inner = self._pattern[self._at + 1 : self._pattern.index("}", self._at)]
        low, comma, high = inner.partition(",")
        digits = set("0123456789")
        if not (set(low) <= digits and set(high) <= digits and (low or comma)):
            return None
        self._at += len(inner) + 2
        return int(low or 0), (int(high) if high else None) if comma else int(low)


def _flags(letters: str) -> str:
    """Those of the flags that both engines know; `u` is the default of both."""
    for letter in letters:
        if letter not in _FLAGS + "u":
            raise UnsuitablePattern(f"it has the flag `{letter}`; known are i, m and s")
    return letters.replace("u", "")


def _literal(code: int) -> str:
    if 0xD800 <= code < 0xE000:
        raise UnsuitablePattern("it has half of a surrogate pair")
    return f"\\x{{{code:X}}}"
