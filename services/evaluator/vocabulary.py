"""Closed word classes of English and German that the fact comparison needs. Data only."""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOPWORDS = _set(
    """
    a about after again all also am an and any are as at be because been before being both but by can could did do
    does doing done each either every for from further get gets got had has have having he her here hers him his
    how i if in into is it its itself just like made make may me might more most much must my need needs no nor not
    of off on once one only or other our ours out over own per please same shall she should since so some such than
    that the their theirs them then there these they this those through thus to too under until up upon us use used
    very was we were what when where whether which while who whom whose why will with within without would yes you
    your yours
    aber alle als am an auch auf aus bei beim bin bis da dabei dafür dann das dass dazu dein dem den denn der des
    dessen die dies diese dieser dieses doch dort du durch ein eine einem einen einer eines er es etwa euch für ganz
    gegen gemäß haben hat hatte ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in indem ins ist ja jede jeder jedes
    kann kein keine keinem keinen keiner können man mehr mein mit muss müssen nach nein nicht noch nur ob oder ohne
    sein seine sehr sich sie sind so soll sollen sollte sowie über um und uns unter vom von vor war waren was weil
    wenn wer werden wie wieder wird wir wo zu zum zur zusammen zwischen
    """
)
NEGATIONS = _set(
    """no not never none nobody nothing neither without cannot forbidden prohibited
    kein keine keinen keinem keiner nicht nie niemals nein ohne verboten untersagt"""
)

_COUNTING = """zero/null one/eins/ein/eine two/zwei three/drei four/vier five/fünf six/sechs seven/sieben eight/acht
    nine/neun ten/zehn eleven/elf twelve/zwölf thirteen/dreizehn fourteen/vierzehn fifteen/fünfzehn
    sixteen/sechzehn seventeen/siebzehn eighteen/achtzehn nineteen/neunzehn"""
_COUNTING_TENS = """twenty/zwanzig thirty/dreißig forty/vierzig fifty/fünfzig sixty/sechzig seventy/siebzig
    eighty/achtzig ninety/neunzig"""

NUMBER_WORDS = {word: value for value, names in enumerate(_COUNTING.split()) for word in names.split("/")}
TENS = {word: 10 * place for place, names in enumerate(_COUNTING_TENS.split(), start=2) for word in names.split("/")}
AMBIGUOUS_NUMBERS = _set("one ein eine eins null acht")  # articles and pronouns too; `acht` is attention

UNITS = {
    **dict.fromkeys(("€", "eur", "euro", "euros"), "eur"),
    **dict.fromkeys(("$", "usd", "dollar", "dollars"), "dollar"),
    **dict.fromkeys(("%", "percent", "prozent"), "%"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs"), "hour"),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), "minute"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), "km"),
}

# Endings of inflection, longest first; facts.stem keeps at least four letters.
SUFFIXES = (
    "ements", "ations", "ement", "ation", "ings", "edly", "ing", "ies", "ied", "ers", "ern", "ed", "es",
    "en", "er", "em", "ly", "s", "e", "n", "y",
)  # fmt: skip
