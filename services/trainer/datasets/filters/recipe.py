"""Which records become training data: every knob of every filter, with its range and what it does when left out."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fleet_events.v1 import PersonalDataAction
from linear_regex import written_out
from personal_data import PersonalKind
from services.trainer.datasets.knobs import Knobs

Text = Literal["prompt", "completion", "any"]
"""Which texts of a record a filter looks at: its user messages, its completions, or both."""


class LengthFilter(Knobs):
    """Drops records whose prompt or any of whose completions is shorter or longer than this.

    Characters are Unicode code points; words are runs between white space, so languages that do not put spaces
    between words need bounds in characters. The ratio is that of the longest completion to the prompt, in characters.
    """

    min_prompt_characters: Annotated[int, Field(ge=0, le=200_000)] = 1
    max_prompt_characters: Annotated[int, Field(ge=1, le=200_000)] = 200_000
    min_completion_characters: Annotated[int, Field(ge=0, le=200_000)] = 1
    max_completion_characters: Annotated[int, Field(ge=1, le=200_000)] = 200_000
    min_prompt_words: Annotated[int, Field(ge=0, le=100_000)] = 0
    max_prompt_words: Annotated[int | None, Field(ge=1, le=100_000)] = None
    min_completion_words: Annotated[int, Field(ge=0, le=100_000)] = 0
    max_completion_words: Annotated[int | None, Field(ge=1, le=100_000)] = None
    min_ratio: Annotated[float | None, Field(gt=0, le=10_000)] = None
    max_ratio: Annotated[float | None, Field(gt=0, le=10_000)] = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for text in ("prompt_characters", "completion_characters", "prompt_words", "completion_words", "ratio"):
            low, high = getattr(self, f"min_{text}"), getattr(self, f"max_{text}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{text} is {low}, expected at most max_{text}, which is {high}")
        return self


_LANGUAGES = (
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr "
    "fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko "
    "ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru "
    "rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue "
    "zh zu"
)
LANGUAGES = frozenset(_LANGUAGES.split())
"""The languages of the classifier."""


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"{language!r} is refused, expected one of {', '.join(sorted(LANGUAGES))}")
    return language


class LanguageFilter(Knobs):
    """Keeps records whose texts are in one of these languages (ISO 639-1).

    A text is dropped only when another language is at least `certainty` likely. Short texts rarely are: those below
    `min_characters` letters are never judged. Both are kept and counted as uncertain.
    """

    languages: Annotated[tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1)]
    certainty: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    min_characters: Annotated[int, Field(ge=1, le=10_000)] = 20
    text: Text = "any"


class RatingFilter(Knobs):
    """Keeps records rated at least so, 0 to 5. `unrated` decides what becomes of unrated records."""

    min_rating: Annotated[float, Field(ge=0, le=5)]
    unrated: Literal["keep", "drop"] = "keep"


class ExactDuplicates(Knobs):
    """Drops a record whose text was there before, apart from case, white space and Unicode form (NFC).

    `by` is what must be equal: prompt and completions, or the prompt alone. Of equal records the first one stays.
    """

    by: Literal["record", "prompt"] = "record"


class NearDuplicates(Knobs):
    """Drops a record whose shingles of three words are too like those of one that was there before (MinHash).

    `threshold` is the Jaccard similarity from which on two texts count as the same. Templated prompts that differ
    in one number are alike by this measure and different by meaning: look at the report's samples before lowering it.
    """

    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.85
    by: Literal["record", "prompt"] = "record"


class GoldenOverlap(Knobs):
    """Always on: drops records whose prompt is in a golden data set, or is like one of its prompts.

    `threshold` is the Jaccard similarity of shingles from which on prompts count as the same; it can be made
    stricter or laxer within these bounds, and never be switched off.
    """

    threshold: Annotated[float, Field(ge=0.5, le=0.95)] = 0.8


class PersonalData(Knobs):
    """Drops records with personal data in any text, or masks it in place as `[EMAIL]`, `[IBAN]` and so on."""

    kinds: Annotated[tuple[PersonalKind, ...], Field(min_length=1)] = tuple(PersonalKind)
    action: PersonalDataAction = PersonalDataAction.MASK


BOILERPLATE = (
    "as an ai language model",
    "as a large language model",
    "i cannot fulfill this request",
    "i can't assist with that",
    "lorem ipsum",
    "als ki-sprachmodell",
    "en tant que modèle de langage",
    "como modelo de lenguaje",
)


class Boilerplate(Knobs):
    """Drops completions without content: stock phrases, one character over and over, hardly any letters.

    `phrases` are looked for without regard to case. `max_repeated` is the longest run of one character (white space
    aside) that is let through; `min_letters` the share of letters and digits among the characters that are no white
    space, required of texts of at least 20 characters.
    """

    phrases: Annotated[tuple[Annotated[str, Field(min_length=3, max_length=200)], ...], Field(max_length=1000)] = (
        BOILERPLATE
    )
    max_repeated: Annotated[int, Field(ge=3, le=10_000)] = 20
    min_letters: Annotated[float, Field(ge=0, le=1)] = 0.4


class ToxicTerms(Knobs):
    """Drops records with one of these words in any text, matched as whole words without regard to case.

    There is no list by default: which words are out of place depends on the domain (a clinic's are not a school's).
    A list of words finds no insult that is put politely, and takes quotations for insults.
    """

    terms: Annotated[
        tuple[Annotated[str, Field(min_length=2, max_length=100)], ...], Field(min_length=1, max_length=10_000)
    ]
    text: Text = "any"


MAX_PATTERN_PARTS = 1024
"""Of a recipe's patterns together, their counted repeats written out: compiling them takes about a second at most."""


def _small_enough(patterns: object) -> object:
    """Refuse what takes long to compile before it is compiled."""
    if isinstance(patterns, (list, tuple)):
        texts = [one.get("pattern") if isinstance(one, dict) else getattr(one, "pattern", None) for one in patterns]
        parts = sum(written_out(text[:1000]) for text in texts if isinstance(text, str))
        if parts > MAX_PATTERN_PARTS:
            raise ValueError(
                f"they have {parts} parts, counted repeats written out and wide classes as four; "
                f"at most {MAX_PATTERN_PARTS} together"
            )
    return patterns


def _compiles(pattern: str) -> str:
    """The engine is Rust's, linear in the text for every pattern; what it cannot promise that for it refuses."""
    import polars as pl

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        lines = str(error).partition("\n\nThis error occurred")[0].strip().splitlines()
        raise ValueError(
            f"{pattern!r} is refused, expected a regular expression of Rust's regex: {lines[-1]}"
        ) from error
    return pattern


class PatternFilter(Knobs):
    """A regular expression of one's own, in the syntax of Rust's regex: no look-around, no back references.

    `drop` drops records in which it is found, `keep` those in which it is not. With `text="any"` one text suffices.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    pattern: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_compiles)]
    action: Literal["drop", "keep"] = "drop"
    text: Text = "any"


class FilterRecipe(Knobs):
    """The filters in the order in which they run; a filter that is None does not run.

    `samples` is how many dropped records each filter keeps to be looked at.
    """

    golden: GoldenOverlap = GoldenOverlap()
    personal: PersonalData | None = None
    length: LengthFilter | None = None
    rating: RatingFilter | None = None
    patterns: Annotated[tuple[PatternFilter, ...], Field(max_length=50), BeforeValidator(_small_enough)] = ()
    boilerplate: Boilerplate | None = None
    toxic: ToxicTerms | None = None
    language: LanguageFilter | None = None
    exact_duplicates: ExactDuplicates | None = ExactDuplicates()
    near_duplicates: NearDuplicates | None = None
    samples: Annotated[int, Field(ge=0, le=100)] = 5

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        names = [one.name for one in self.patterns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"patterns: the name {twice[0]!r} is given twice, expected each name once")
        return self
