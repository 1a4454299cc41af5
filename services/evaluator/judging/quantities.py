"""Quantities of a text: numbers with their units, comparable in any notation. Pure; English and German.

`two weeks`, `14 Tage` and `vierzehn Tagen` are the same quantity; 24 hours and a day too; a month is no number of days.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal

from services.evaluator.judging.number_words import AMBIGUOUS, to_digits, value_of
from services.evaluator.judging.text import fold


def _units(dimension: str, factor: str, names: str) -> dict[str, tuple[str, Decimal]]:
    return dict.fromkeys(names.split("|"), (dimension, Decimal(factor)))


UNITS: dict[str, tuple[str, Decimal]] = {
    **_units("time", "1", "second|seconds|sec|s|sekunde|sekunden"),
    **_units("time", "60", "minute|minutes|min|mins|minuten"),
    **_units("time", "3600", "hour|hours|h|hr|hrs|stunde|stunden"),
    **_units("time", "86400", "day|days|tag|tage|tagen|kalendertage|kalendertagen|calendar days"),
    **_units("time", "604800", "week|weeks|woche|wochen"),
    **_units(
        "workdays", "1", "working day|working days|business days|werktag|werktage|werktagen|arbeitstage|arbeitstagen"
    ),
    **_units("months", "1", "month|months|monat|monate|monaten|monats"),
    **_units("months", "12", "year|years|jahr|jahre|jahren"),
    **_units("EUR", "1", "€|eur|euro|euros"),
    **_units("USD", "1", "$|usd|dollar|dollars"),
    **_units("GBP", "1", "£|gbp|pound sterling"),
    **_units("CHF", "1", "chf|franken"),
    **_units("percent", "1", "%|percent|per cent|prozent"),
    **_units("metres", "0.001", "mm|millimeter|millimetre|millimetres"),
    **_units("metres", "0.01", "cm|zentimeter|centimetre|centimetres"),
    **_units("metres", "1", "m|meter|metern|metre|metres|meters"),
    **_units("metres", "1000", "km|kilometer|kilometern|kilometre|kilometres|kilometers"),
    **_units("square metres", "1", "m2|qm|quadratmeter|quadratmetern|square metre|square metres|square meters"),
    **_units("grams", "1", "g|gramm|gram|grams"),
    **_units("grams", "1000", "kg|kilo|kilos|kilogramm|kilogram|kilograms"),
    **_units("grams", "1000000", "tonne|tonnes|tonnen"),
    **_units("litres", "1", "l|liter|litern|litre|litres|liters"),
    **_units("bytes", "1000", "kb"),
    **_units("bytes", "1000000", "mb"),
    **_units("bytes", "1000000000", "gb"),
    **_units("bytes", "1024", "kib"),
    **_units("bytes", "1048576", "mib"),
    **_units("bytes", "1073741824", "gib"),
    **_units("degrees", "1", "°c|degree|degrees|grad"),
}
_NAMES = "|".join(re.escape(name) for name in sorted(UNITS, key=len, reverse=True))
_QUANTITY = re.compile(
    rf"(?P<sign>§+|[€$£])?\s?(?<![\w.,:])(?<![a-z]-)(?P<number>\d+(?:[.,:/]\d+)*[a-z]?(?![^\W_]))"
    rf"(?:[ -]?(?P<unit>{_NAMES})(?![^\W_]))?"
    rf"|\b(?P<word>{'|'.join(AMBIGUOUS)}) (?P<of>{_NAMES})(?![^\W_])"
)
_JOINED = re.compile(rf"(?<=\d)(?=(?:{_NAMES})(?![^\W_]))")
_UNIT = rf"(?:{_NAMES})(?![^\W_])"
_FRACTIONS = tuple(
    (re.compile(pattern), written)
    for pattern, written in (
        (r"\bdreiviertelstunden?\b", "45 minuten"),
        (r"\bviertelstunden?\b", "15 minuten"),
        (rf"\b(?:a |one )?half (?:an? |of an? )?(?={_UNIT})", "0.5 "),
        (rf"\b(?:a |one )?quarter (?:of )?(?:an? )?(?={_UNIT})", "0.25 "),
        (rf"\bthree quarters of an? (?={_UNIT})", "0.75 "),
        (rf"\b(?:eine?[rsnm]? )?halbe[rsnm]? (?={_UNIT})", "0.5 "),
        (r"\b(?:anderthalb|eineinhalb)\b", "1.5"),
        (r"\bzweieinhalb\b", "2.5"),
        (r"\bdreieinhalb\b", "3.5"),
        (r"\b(\d+) and a half\b", r"\1.5"),
        (rf"\b(than|within|after|before|least|most) an? (?={_UNIT})", r"\1 one "),
    )
)
"""Parts of a unit, and `a year` where it is an amount and not `per year`."""
_MARK = "quantity"
_GROUPED = re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?")


@dataclass(frozen=True)
class Quantity:
    """A value in the dimension's smallest unit of ours; dimension is empty for a bare number, `§` for a paragraph,
    `text` for times of day, dates and versions, whose value is as written."""

    value: Decimal | str
    dimension: str
    written: str = field(default="", compare=False)
    """As the text has it, numbers in digits."""


def quantities(text: str) -> tuple[Quantity, ...]:
    """The text's quantities in their order, with repetitions; numbers at the head of list items are none."""
    return tuple(_quantity(found) for found in _QUANTITY.finditer(_comparable(text)))


def _comparable(text: str) -> str:
    bare = re.sub(r"(?m)^\s*\d{1,2}[.)]\s+", "", text)
    folded = _JOINED.sub(" ", to_digits(fold(bare)))
    for pattern, written in _FRACTIONS:
        folded = pattern.sub(written, folded)
    return folded


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """The same one, or the same number where one of the two leaves its unit out."""
    return one.value == other.value and (one.dimension == other.dimension or not one.dimension or not other.dimension)


def marked(text: str) -> tuple[str, tuple[Quantity, ...]]:
    """The folded text with a word in place of each quantity, and the quantities by that word's number
    (`place_of_mark`). Paragraphs stay as they are: they are no amount."""
    found: list[Quantity] = []

    def mark(match: re.Match[str]) -> str:
        quantity = _quantity(match)
        if quantity.dimension == "§":
            return match.group()
        found.append(quantity)
        return f" {_MARK}{len(found) - 1} "

    return _QUANTITY.sub(mark, _comparable(text)), tuple(found)


def place_of_mark(word: str) -> int | None:
    """Which quantity of `marked` the word stands for; None for another word."""
    number = word.removeprefix(_MARK)
    return int(number) if number != word and number.isdecimal() else None


def _quantity(found: re.Match[str]) -> Quantity:
    if found["word"]:
        dimension, factor = UNITS[found["of"]]
        return Quantity(Decimal(value_of(found["word"]) or 0) * factor, dimension, found.group().strip())
    value = _number(found["number"])
    sign = found["sign"] or ""
    if sign.startswith("§"):
        return Quantity(found["number"], "§", found.group().strip())
    if value is None:
        return Quantity(found["number"], "text", found.group().strip())
    dimension, factor = UNITS[found["unit"] or sign] if found["unit"] or sign else ("", Decimal(1))
    return Quantity((value * factor).normalize(), dimension, found.group().strip())


def _number(text: str) -> Decimal | None:
    """The decimal; None for what is none (10:40, 1.2.3, 12a). `1.200` and `1.200,50` are German thousands."""
    if _GROUPED.fullmatch(text):
        text = text.replace(".", "")
    if re.fullmatch(r"\d+(?:[.,]\d+)?", text):
        return Decimal(text.replace(",", "."))
    return None
