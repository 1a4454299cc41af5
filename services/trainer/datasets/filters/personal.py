"""Personal data that has a form: e-mail addresses, telephone, account and card numbers, IP addresses."""

import ipaddress
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from stdnum import iban, luhn

from services.trainer.datasets.filters.patterns import contains
from services.trainer.datasets.filters.recipe import PersonalData, PersonalKind
from services.trainer.datasets.filters.rows import Mask, Rows
from services.trainer.datasets.filters.verdict import Verdict, first_reason
from services.trainer.datasets.records import Record, schema

# Every repetition is bounded or followed by something it cannot match, so none of these takes more than linear time.
_FORMS: dict[PersonalKind, re.Pattern[str]] = {
    PersonalKind.EMAIL: re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}"),
    PersonalKind.IBAN: re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])"),
    PersonalKind.CARD: re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)"),
    PersonalKind.IP: re.compile(
        r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)"
    ),
    PersonalKind.PHONE: re.compile(
        r"(?<![\w+.,/-])(?:"
        r"(?:\+|(?<!\d )00)[1-9][\d ()/.-]{6,20}\d"  # with a country code
        r"|(?<!\d )0\d{1,4}[ /-]\d{3,8}(?:[ -]?\d{1,5}){0,3}"  # with an area code, as in most of Europe
        r"|(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}"  # North America
        r")(?![\w])"
    ),
}
_SHORTEST_NUMBER, _LONGEST_NUMBER = 7, 15  # digits; the latter by E.164
_CANDIDATE = r"@|\d{2}|:.*:"


class Personal:
    """Finds personal data, and masks it or drops its records."""

    name = "personal"

    def __init__(self, knobs: PersonalData) -> None:
        self._knobs = knobs

    def judge(self, rows: Rows) -> Verdict:
        """Drops records with any of the kinds; the reason names the kind, never the data."""
        found: dict[int, PersonalKind] = {}
        for row in np.nonzero(_candidates(rows))[0].tolist():
            texts = [*rows.prompts.of(row), *rows.completions.of(row)]
            if kind := next((kind for text in texts for kind in self.masked(text)[1]), None):
                found[row] = kind
        reasons = [
            (kind.value, _marked(len(rows), [r for r, k in found.items() if k is kind])) for kind in PersonalKind
        ]
        kinds, labels = first_reason(len(rows), reasons)
        return Verdict(kinds, labels, lambda row: f"text: data of the kind {found[row].value}, none passes")

    def mask(self, rows: Rows) -> tuple[Rows, Mask, dict[str, int]]:
        """The records with the data replaced, which ones changed, and how often each kind was found in a record."""
        changed: list[int] = []
        counts: dict[str, int] = {}
        values: list[dict[str, object]] = []
        for row in np.nonzero(_candidates(rows))[0].tolist():
            (record,) = rows.batch.slice(row, 1).to_pylist()
            found: set[PersonalKind] = set()
            for message in record["prompt"]:
                message["content"], kinds = self.masked(message["content"])
                found |= kinds
            for number, completion in enumerate(record["completions"]):
                record["completions"][number], kinds = self.masked(completion)
                found |= kinds
            if found:
                changed.append(row)
                values.append(Record.of_values(record).values())
                for kind in found:
                    counts[kind.value] = counts.get(kind.value, 0) + 1
        if not changed:
            return rows, np.zeros(len(rows), bool), counts
        order = np.arange(len(rows))
        order[changed] = len(rows) + np.arange(len(changed))
        both = pa.Table.from_batches([rows.batch, pa.RecordBatch.from_pylist(values, schema=schema())])
        (batch,) = both.take(pa.array(order)).combine_chunks().to_batches()
        return Rows(batch), _marked(len(rows), changed), counts

    def masked(self, text: str) -> tuple[str, set[PersonalKind]]:
        """The text with `[KIND]` in place of what was found."""
        found: set[PersonalKind] = set()
        # What stood in the way of a second number may be masked now: `030 1234567 030 7654321`.
        while (once := self._masked_once(text, found)) != text:
            text = once
        return text, found

    def _masked_once(self, text: str, found: set[PersonalKind]) -> str:
        for kind in PersonalKind:
            if kind not in self._knobs.kinds:
                continue

            def replace(match: re.Match[str], kind: PersonalKind = kind) -> str:
                length = _VALID[kind](match.group())
                if not length:
                    return match.group()
                found.add(kind)
                return f"[{kind.name}]{match.group()[length:]}"

            text = _FORMS[kind].sub(replace, text)
        return text


def _candidates(rows: Rows) -> Mask:
    found = np.zeros(len(rows), bool)
    for texts in (rows.prompts, rows.completions):
        found |= texts.any(contains(texts.values, _CANDIDATE))
    return found


def _marked(count: int, rows: list[int]) -> Mask:
    marked = np.zeros(count, bool)
    marked[rows] = True
    return marked


def _iban(found: str) -> int:
    """Length of the valid number at the start: behind it may stand what only looks like more of it."""
    for end in range(len(found), 14, -1):
        if found[end - 1] != " " and iban.is_valid(found[:end]):
            return end
    return 0


def _card(found: str) -> int:
    digits = re.sub(r"\D", "", found)
    return len(found) if digits[0] in "23456" and luhn.is_valid(digits) else 0


def _ip(found: str) -> int:
    # `::` and `a::b` are addresses by the standard, and much more often a part of a program.
    if ":" in found and sum(map(bool, found.split(":"))) < 3:
        return 0
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return 0
    return len(found)


def _phone(found: str) -> int:
    digits = [at for at, character in enumerate(found) if character.isdigit()]
    if len(digits) <= _LONGEST_NUMBER:
        return len(found) if len(digits) >= _SHORTEST_NUMBER else 0
    # Two numbers side by side: the first ends where groups of digits do.
    ends = (at + 1 for at in digits[_SHORTEST_NUMBER - 1 : _LONGEST_NUMBER] if not found[at + 1].isdigit())
    return next(ends, 0)


_VALID: dict[PersonalKind, Callable[[str], int]] = {
    PersonalKind.EMAIL: len,
    PersonalKind.IBAN: _iban,
    PersonalKind.CARD: _card,
    PersonalKind.IP: _ip,
    PersonalKind.PHONE: _phone,
}
"""How much of a candidate is what it looks like, in characters; 0 is nothing."""
