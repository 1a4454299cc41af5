"""Numbers in words, and quantities whatever they are written as."""

from __future__ import annotations

from decimal import Decimal

import pytest

from services.evaluator.judging.number_words import to_digits
from services.evaluator.judging.quantities import Quantity, quantities

ONES = [
    "",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
]
ONES += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
EINS = [
    "",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
]
EINS += ["vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"]
ZEHN = ["", "", "zwanzig", "dreissig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
ARTICLES = {1, 8}  # `one`, `ein`; `acht` is attention too


def english(n: int) -> str:
    if n >= 1000:
        return f"{english(n // 1000)} thousand{' ' + english(n % 1000) if n % 1000 else ''}"
    if n >= 100:
        return f"{ONES[n // 100]} hundred{' and ' + english(n % 100) if n % 100 else ''}"
    return ONES[n] if n < 20 else TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")


def german(n: int) -> str:
    if n >= 1000:
        return f"{german(n // 1000)}tausend{german(n % 1000)}"
    if n >= 100:
        return f"{EINS[n // 100]}hundert{german(n % 100)}"
    return EINS[n] if n < 20 else (f"{EINS[n % 10]}und" if n % 10 else "") + ZEHN[n // 10]


NUMBERS = sorted({*range(2, 1000), *range(1000, 1_000_000, 7919)} - ARTICLES)


def test_every_number_in_english_words_is_read_back():
    wrong = {n: english(n) for n in NUMBERS if to_digits(f"about {english(n)} of them") != f"about {n} of them"}
    assert wrong == {}


def test_every_number_in_german_words_is_read_back():
    wrong = {n: german(n) for n in NUMBERS if to_digits(f"etwa {german(n)} davon") != f"etwa {n} davon"}
    assert wrong == {}


@pytest.mark.parametrize(
    "text", ["one of them", "eine frist", "außer acht lassen", "none", "often", "zweifel", "weights"]
)
def test_articles_and_longer_words_stay_words(text):
    assert to_digits(text) == text


DAY = 86_400


@pytest.mark.parametrize(
    ("text", "value", "dimension"),
    [
        ("two weeks", 14 * DAY, "time"),
        ("14 Tage", 14 * DAY, "time"),
        ("vierzehn Tagen", 14 * DAY, "time"),
        ("24 hours", DAY, "time"),
        ("one day", DAY, "time"),
        ("acht Wochen", 56 * DAY, "time"),
        ("90s", 90, "time"),
        ("four working days", 4, "workdays"),
        ("4 Werktage", 4, "workdays"),
        ("ein Jahr", 12, "months"),
        ("12 Monate", 12, "months"),
        ("1,200 euros", 1200, "EUR"),
        ("1.200 Euro", 1200, "EUR"),
        ("1.200,50 €", Decimal("1200.5"), "EUR"),
        ("€12", 12, "EUR"),
        ("4,5 km", 4500, "metres"),
        ("2 GiB", 2 * 1024**3, "bytes"),
        ("2048 MiB", 2 * 1024**3, "bytes"),
        ("2GB", 2 * 10**9, "bytes"),
        ("15%", 15, "percent"),
        ("fünfzehn Prozent", 15, "percent"),
        ("§ 123", "123", "§"),
        ("§61a", "61a", "§"),
        ("10:40", "10:40", "text"),
        ("2.14.1", "2.14.1", "text"),
        ("12 crates", 12, ""),
    ],
)
def test_a_quantity_is_the_same_however_it_is_written(text, value, dimension):
    expected = value if isinstance(value, str) else Decimal(value)
    assert quantities(f"It is {text}.") == (Quantity(expected, dimension),)


def test_the_numbers_of_a_list_count_nothing():
    assert quantities("1. Open it.\n2. Wait 5 minutes.\n") == (Quantity(Decimal(300), "time"),)
