"""PEFT's `rank_pattern` and `alpha_pattern`: the first key that matches the end of a module's name gives its value.

PEFT's own rule is `re.match(rf"(.*\\.)?({key})$", module)` (`peft.utils.other.get_pattern_key`, peft 0.21). Its answers
are given here without its cost: plain names, which tools write one of for every module, are looked up, and only what
is truly a pattern is matched, by an engine of linear time.
"""

import re
from collections.abc import Iterator, Mapping

from linear_regex import Pattern, UnsuitablePattern, compile_pattern
from lora_core.errors import UnsupportedAdapter

MAX_EXPRESSIONS = 64
"""Keys that are more than a module's name."""
MAX_COMPARISONS = 1_000_000_000
"""Of one character of a module's name with one place of a pattern, over all modules: some seconds."""

# A name as people write it: its dots are any character to PEFT, escaped ones (re.escape) are dots.
_NAME = re.compile(r"(?:[\w.-]|\\[.-])+")


class ModulePatterns:
    """The values of one of the two fields. `field` names it in errors."""

    def __init__(self, field: str, given: Mapping[str, float]) -> None:
        """Raises UnsupportedAdapter for a pattern that cannot be matched in linear time, or for too many."""
        self._field = field
        self._values = list(given.values())
        # Names by their length and by where any character may stand: there the name in here has "?".
        self._names: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
        self._expressions: list[tuple[int, Pattern]] = []
        self._comparisons = 0
        for index, key in enumerate(given):
            if _NAME.fullmatch(key):
                self._add_name(index, key)
            else:
                self._expressions.append((index, self._compiled(key)))
        if len(self._expressions) > MAX_EXPRESSIONS:
            raise UnsupportedAdapter(
                field, f"{len(self._expressions)} patterns", f"at most {MAX_EXPRESSIONS} beside plain module names"
            )

    def value_of(self, module: str) -> float | None:
        """The value of the first key that matches the module's name or its end, None where none does.

        Raises UnsupportedAdapter when all these calls together cost more than `MAX_COMPARISONS`.
        """
        first = min(self._named(module), default=len(self._values))
        for index, expression in self._expressions:
            if index > first:
                break
            self._count(len(module) * expression.steps)
            if expression.search(module):
                first = index
                break
        return self._values[first] if first < len(self._values) else None

    def _add_name(self, index: int, key: str) -> None:
        parts = re.findall(r"\\.|.", key)
        free = tuple(at for at, part in enumerate(parts) if part == ".")
        names = self._names.setdefault(len(parts), {}).setdefault(free, {})
        names.setdefault(_masked("".join(part[-1] for part in parts), free), index)

    def _named(self, module: str) -> Iterator[int]:
        """Indices of the names that match."""
        start = 0
        while True:
            end_of_name = module[start:]
            for free, names in self._names.get(len(end_of_name), {}).items():
                self._count(16 * len(end_of_name) if free else 16)  # as long as 16 comparisons take in the engine
                if (index := names.get(_masked(end_of_name, free))) is not None:
                    yield index
            if (dot := module.find(".", start)) < 0:
                return
            start = dot + 1

    def _compiled(self, key: str) -> Pattern:
        try:
            return compile_pattern(rf"(.*\.)?({key})$", at_start=True)
        except UnsuitablePattern as error:
            raise UnsupportedAdapter(self._field, key[:200], f"a pattern for linear-time matching: {error}") from None

    def _count(self, comparisons: int) -> None:
        self._comparisons += comparisons
        if self._comparisons > MAX_COMPARISONS:
            found = f"{len(self._values)} keys for this many modules"
            raise UnsupportedAdapter(self._field, found, "fewer patterns, or full module names with escaped dots")


def _masked(name: str, free: tuple[int, ...]) -> str:
    if not free:
        return name
    letters = list(name)
    for at in free:
        letters[at] = "?"
    return "".join(letters)
