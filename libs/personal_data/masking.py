"""Personal data that has a form: e-mail addresses, telephone, account and card numbers, IP addresses."""

import ipaddress
import re
from collections.abc import Callable, Collection
from enum import StrEnum

from stdnum import iban, luhn


class PersonalKind(StrEnum):
    """What can be found by form and, for IBAN and card numbers, by checksum, in the order in which it is looked for.

    Names and postal addresses have no form.
    """

    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    IP = "ip"
    PHONE = "phone"


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
CANDIDATE = r"@|\d{2}|:.*:"
"""Where this is not found in a line, nothing is."""


def masked(text: str, kinds: Collection[PersonalKind] = tuple(PersonalKind)) -> tuple[str, set[PersonalKind]]:
    """The text with `[KIND]` in place of what was found, and what that was."""
    found: set[PersonalKind] = set()
    # What stood in the way of a second number may be masked now: `030 1234567 030 7654321`.
    while (once := _masked_once(text, kinds, found)) != text:
        text = once
    return text, found


def _masked_once(text: str, kinds: Collection[PersonalKind], found: set[PersonalKind]) -> str:
    for kind in PersonalKind:
        if kind not in kinds:
            continue

        def replace(match: re.Match[str], kind: PersonalKind = kind) -> str:
            length = _VALID[kind](match.group())
            if not length:
                return match.group()
            found.add(kind)
            return f"[{kind.name}]{match.group()[length:]}"

        text = _FORMS[kind].sub(replace, text)
    return text


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
"""How much of a candidate is what it looks like, in characters; 0 is none of it."""
