"""How large a pattern in the syntax of Rust's `regex` is once its counted repeats are written out."""

import re

_COUNTS = re.compile(r"\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}")
_NAMED = re.compile(r"[pPxuU]\{[^}]*\}|[pP].|b\{[^}]*\}")
_PREFIX = re.compile(r"\?(?:P?<[^>]*>|[a-zA-Z-]*[:)])")
_WIDE_LETTERS = set("pPwWdDsS")
_WIDE = 4  # parts that a class of many ranges counts as: compiling one takes about 4 ms


def written_out(pattern: str) -> int:
    """Its parts. Known before compiling, whose time they bound.

    The pattern need not be valid: the engine refuses what is not.
    """
    totals, last, at = [0], 0, 0
    while at < len(pattern):
        character, at = pattern[at], at + 1
        if character == "(":
            prefix = _PREFIX.match(pattern, at)
            at = prefix.end() if prefix else at
            if prefix and prefix[0].endswith(")"):
                continue
            totals[-1] += last
            totals.append(0)
            last = 1
        elif character == ")" and len(totals) > 1:
            last += totals.pop()
        elif character == "{" and (counts := _COUNTS.match(pattern, at - 1)):
            at = counts.end()
            low, high = (int(digits[:9] or 0) for digits in (counts[1], counts[3]))
            last = max(last, 1) * max(low + 1 if counts[2] else low, high, 1)
        elif character in "*+?":
            last += 1
        else:
            totals[-1] += last
            last, at = _part(pattern, character, at)
    return sum(totals) + last


def _part(pattern: str, character: str, at: int) -> tuple[int, int]:
    """The size of a plain character, an escape or a set that begins with `character`, and the place after it."""
    if character == "\\":
        named = _NAMED.match(pattern, at)
        return _WIDE if pattern[at : at + 1] in _WIDE_LETTERS else 1, named.end() if named else at + 1
    if character != "[":
        return 1, at
    depth, size, first = 1, 1, True
    while at < len(pattern) and depth:
        inner = pattern[at]
        if inner == "\\":
            size += _WIDE if pattern[at + 1 : at + 2] in _WIDE_LETTERS else 1
            at += 2
            first = False
            continue
        if inner == "[":
            depth += 1
        elif inner == "]" and not first:
            depth -= 1
        first = first and inner == "^"
        at += 1
    return size, at
