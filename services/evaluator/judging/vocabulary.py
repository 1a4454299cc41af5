"""Closed word classes of English and German that the fact comparison needs. Data only."""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.casefold().split())


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
    """no not never none nobody nothing nowhere neither without cannot forbidden prohibited
    kein keine keinen keinem keiner keines keinerlei nicht nichts nie niemals niemand niemanden niemandem nirgends
    weder nein ohne verboten untersagt"""
)

# Words that tell the two languages apart.
ENGLISH = _set(
    """the of and is to that for are with it be must on at by from not or as this will may has have no its their who
    which than within"""
)
GERMAN = _set(
    """der die das und ist zu den sie ein eine einem einen einer für mit nicht dem des im auf nach bei von vom zum zur
    wird werden sind sich kein keine keiner nichts oder als bis wer darf muss weder noch mehr davon hat binnen
    spätestens"""
)

GRAMMAR = _set(
    """the a an is are was were be been has have had must may can will shall should do does this that these those it
    they you we he she who which whose
    der die das den dem des ein eine einen einem einer eines ist sind war waren wird werden hat haben muss müssen kann
    können darf dürfen soll sollen dies diese dieser dieses es sie er ihr wir dass"""
)  # what makes words a sentence; prepositions and `and` stand in lists too

# Pairs of which one says the opposite of the other; an answer that has the other one alone may reverse a statement.
OPPOSITES = tuple(
    (_set(one), _set(other))
    for one, other in (
        ("before vor bevor until bis prior", "after nach nachdem following"),
        ("minimum least mindestens wenigstens", "maximum most höchstens maximal längstens"),
        ("above over more über mehr länger longer later", "below under less fewer unter weniger kürzer earlier"),
        ("allowed permitted may can erlaubt zulässig dürfen darf", "forbidden prohibited verboten unzulässig"),
        ("with mit including inklusive included", "without ohne excluding exklusive except außer excluded"),
        ("always immer jederzeit", "never nie niemals"),
        ("open opened öffnen offen geöffnet", "closed schließen geschlossen"),
        ("free kostenlos kostenfrei gebührenfrei", "charged paid kostenpflichtig gebührenpflichtig"),
        ("required mandatory must erforderlich verpflichtend muss müssen", "optional voluntary freiwillig optional"),
        ("increase rises raised steigt erhöht", "decrease falls lowered sinkt senkt"),
        ("first erste erster ersten oldest älteste", "last letzte letzter letzten newest neueste"),
        ("start starts begin beginnt anfang", "end ends stop stops endet ende"),
        ("accepted granted approved bewilligt genehmigt", "rejected refused denied abgelehnt verweigert"),
        ("both beide all alle jeder every", "either one einer none"),
        ("daily täglich", "weekly wöchentlich monthly monatlich yearly annually jährlich"),
        ("morning vormittags morgens", "evening afternoon nachmittags abends"),
        ("manually manual manuell", "automatically automatic automatisch"),
    )
)  # fmt: skip

# Small words by what they do to a statement; particles.py compares them.
PARTICLES = {
    "only": _set("only solely exclusively merely alone nur lediglich bloß ausschließlich allein"),
    "even": _set("even sogar selbst"),
    "except": _set("except unless außer ausgenommen"),
    "in part": _set(
        """some several few most many almost nearly hardly barely rarely seldom usually often sometimes partly
        einige manche mehrere viele meisten meist meistens fast beinahe kaum selten oft manchmal gelegentlich
        teilweise"""
    ),
    "or": _set("or oder"),
    "because": _set("because weil"),
    "although": _set("although though despite obwohl obgleich trotz"),
}
MODALS = {
    "may": _set("may can might could darf dürfen kann können könnte könnten"),
    "must": _set("must shall muss müssen"),
}
DIRECTIONS = {
    "from": _set("from von vom aus"),
    "to": _set("to into onto zu zum zur"),
    "until": _set("until till bis"),
    "since": _set("since ab seit"),
    "for": _set("for für"),
    "against": _set("against gegen"),
}
# How events stand to each other; relations.py compares them.
RELATIONS = {
    "before": _set("before beforehand bevor ehe vor davor vorher zuvor"),
    "until": _set("until till bis"),
    "after": _set("after afterwards thereafter following once nach nachdem danach nachher anschließend sobald"),
    "since": _set("since ab seit seitdem onwards onward"),
    "during": _set("during while während solange throughout"),
    "if": _set("if provided falls sofern"),
    "when": _set("when whenever upon wenn bei beim als"),
}
PREPOSITIONS = _set(
    """in at on by for from to into within with without during after before until via per every each
    in im an am bei beim zum zur mit ohne nach vor binnen innerhalb von vom für ab bis auf durch gegen über unter
    jede jeden jeder jedes"""
)
TITLES = _set("mr mrs ms dr prof herr frau")
ARTICLES = _set("a an the its their his her der die das den dem des ein eine einen einem einer eines")

MONTHS = _set(
    """january february march april may june july august september october november december
    januar februar märz mai juni juli oktober dezember"""
)

UNITS = {
    **dict.fromkeys(("€", "eur", "euro", "euros"), "eur"),
    **dict.fromkeys(("$", "usd", "dollar", "dollars"), "dollar"),
    **dict.fromkeys(("%", "percent", "prozent"), "%"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs"), "hour"),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), "minute"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), "km"),
}

# Endings of inflection, longest first; fact_overlap.stem keeps at least four letters.
SUFFIXES = (
    "ements", "ations", "ement", "ation", "ings", "edly", "ing", "ies", "ied", "ers", "ern", "ed", "es",
    "en", "er", "em", "ly", "s", "e", "n", "y",
)  # fmt: skip
