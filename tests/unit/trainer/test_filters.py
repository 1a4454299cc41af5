"""Each filter with records that it drops, near misses that it keeps, and the reasons it gives."""

import pytest
from pydantic import ValidationError

from services.trainer.datasets.filters import FilterRecipe
from services.trainer.datasets.records import Kind, Message
from tests.unit.trainer.filtering import filtered, record

pytestmark = [pytest.mark.unit, pytest.mark.requirement("AS-3.1")]


def test_texts_beyond_the_bounds_of_length_are_dropped_with_the_number_and_the_bound() -> None:
    short, long, fit = record("Öl?", "gut so"), record("Why?", "yes " * 30), record("Wozu Öl?", "Zum Braten.")
    done = filtered([short, long, fit], length={"min_prompt_characters": 4, "max_completion_words": 29})
    assert done.kept == [fit]
    assert done.reasons("length") == [
        "prompt characters: 3, at least 4 pass",
        "completion words: 30, at most 29 pass",
    ]
    assert done.report.filters["length"].reasons == {"prompt characters below 4": 1, "completion words above 29": 1}


def test_lengths_count_code_points_and_every_completion() -> None:
    umlauts = record("äöüß", "ja")
    second_is_long = record("Which?", "a", "b" * 11)
    done = filtered([umlauts, second_is_long], length={"max_prompt_characters": 6, "max_completion_characters": 10})
    assert done.kept == [umlauts]


def test_a_ratio_bounds_the_longest_completion_by_the_prompt() -> None:
    even, chatty = record("a" * 10, "b" * 20), record("a" * 10, "b" * 21)
    done = filtered([even, chatty], length={"max_ratio": 2})
    assert done.kept == [even]
    assert done.reasons("length") == ["completion/prompt ratio: 2.1, at most 2 pass"]


def test_a_rating_below_the_floor_is_dropped_and_an_unrated_record_only_if_asked_for() -> None:
    low, fit, unrated = record("a", rating=2.9), record("b", rating=3.0), record("c")
    assert filtered([low, fit, unrated], rating={"min_rating": 3}).kept == [fit, unrated]
    strict = filtered([low, fit, unrated], rating={"min_rating": 3, "unrated": "drop"})
    assert strict.kept == [fit]
    assert strict.reasons("rating") == [
        "rating: 2.9, at least 3 is required",
        "rating: none, at least 3 is required",
    ]


def test_a_record_in_another_language_is_dropped() -> None:
    german = record(
        "Wie lang ist die Kündigungsfrist für eine gemietete Wohnung?",
        "Die Kündigungsfrist beträgt drei Monate zum Ende eines Kalendermonats.",
    )
    french = record(
        "Quel est le délai de préavis pour un appartement loué ?",
        "Le délai de préavis est de trois mois pour un logement vide.",
    )
    done = filtered([german, french], language={"languages": ["de"]})
    assert done.kept == [german]
    assert done.reasons("language")[0].startswith("prompt: fr with a probability of ")


def test_a_text_too_short_to_tell_its_language_is_kept_and_counted_as_uncertain() -> None:
    done = filtered([record("Refund?", "Sí."), record("SELECT 1;", "42")], language={"languages": ["en"]})
    assert len(done.kept) == 2
    assert done.report.filters["language"].uncertain == 2


def test_equal_records_are_dropped_in_any_case_white_space_and_unicode_form() -> None:
    first = record("Wie ändere ich es?", "Unter  Einstellungen.")
    again = record("WIE A\u0308NDERE ICH\u00a0ES? ", "unter einstellungen.")
    other_sign = record("Wie ändere ich es!", "Unter Einstellungen.")
    done = filtered([first, again, other_sign], exact_duplicates={})
    assert done.kept == [first, other_sign]
    assert done.reasons("exact_duplicates") == [
        f"record: equal to that of record {first.record_id[:16]}…, each passes once"
    ]


def test_texts_that_are_equal_only_when_joined_are_no_duplicates() -> None:
    one, two = record("a", "b", "c"), record("a", "b c")
    assert filtered([one, two], exact_duplicates={}).kept == [one, two]


def test_a_prompt_may_be_let_through_once() -> None:
    first, second = record("How?", "So."), record("how?", "Otherwise.")
    assert filtered([first, second], exact_duplicates={"by": "prompt"}).kept == [first]
    assert filtered([first, second], exact_duplicates={"by": "record"}).kept == [first, second]


SENTENCE = (
    "The tenant has to be told in writing within thirty days after the end of the lease which part of the deposit is "
    "kept and for which damage to the flat it is kept by the owner of the house"
)


def test_a_record_nearly_like_an_earlier_one_is_dropped_with_its_partner_and_similarity() -> None:
    first, near = record(SENTENCE, "Noted."), record(SENTENCE.replace("thirty days", "30 days"), "Noted.")
    far = record(
        "Which part of the deposit may the owner of the house keep when the lease has come to its end?", "Some."
    )
    done = filtered([first, near, far], near_duplicates={"threshold": 0.75})
    assert done.kept == [first, far]
    (reason,) = done.reasons("near_duplicates")
    assert f"to record {first.record_id[:16]}…" in reason
    assert "below 0.75 passes" in reason


def test_near_duplicates_are_found_in_scripts_without_spaces() -> None:
    first = record(
        "敷金のうちどの部分が返還されないかを賃貸借契約の終了後三十日以内に書面で知らせなければならない", "はい"
    )
    near = record("敷金のうちどの部分が返還されないかを賃貸借契約の終了後三十日以内に書面で知らせねばならない", "はい")
    assert filtered([first, near], near_duplicates={"threshold": 0.75}).kept == [first]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jörg.müller+x@mail.example.org.", "Write to [EMAIL]."),
        ("IBAN DE89 3704 0044 0532 0130 00 ODER bar", "IBAN [IBAN] ODER bar"),
        ("Card 4111-1111-1111-1111, please", "Card [CARD], please"),
        ("From 192.168.7.21 to 2001:db8::8a2e:370:7334", "From [IP] to [IP]"),
        ("Call +49 (30) 1234-5678 or 030 1234567 or (555) 123-4567", "Call [PHONE] or [PHONE] or [PHONE]"),
        ("030 1234567 030 7654321 +49 30 1234567", "[PHONE] [PHONE] [PHONE]"),
    ],
)
def test_personal_data_is_masked_in_place(text: str, masked: str) -> None:
    done = filtered([record("Who?", text)], personal={})
    assert done.kept == [record("Who?", masked)]
    assert done.report.filters["personal"].changed == 1


@pytest.mark.parametrize(
    "text",
    [
        "IBAN DE88 3704 0044 0532 0130 00",  # a digit of the checksum is wrong
        "Card 4111-1111-1111-1112",  # fails Luhn
        "Order 12345, version 1.2, on 2024-05-17 at 10:30:45",
        "std::vector<a::b> and x[1:2:3]",
        "300.400.500.600 is no address",
        "me@home and @handle",
    ],
)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    done = filtered([record("Who?", text)], personal={})
    assert done.kept == [record("Who?", text)]


def test_records_with_personal_data_can_be_dropped_and_the_report_does_not_quote_it() -> None:
    system = (Message("system", "The caller is ann@example.org"), Message("user", "Who am I?"))
    done = filtered([record(system), record("Who?", "Nobody.")], personal={"action": "drop", "kinds": ["email"]})
    assert done.kept == [record("Who?", "Nobody.")]
    assert "ann@" not in done.report.model_dump_json()
    assert done.report.filters["personal"].reasons == {"email": 1}


def test_completions_that_say_nothing_are_dropped() -> None:
    fit = [
        record("a", "42."),
        record("b", "a == b && c != d || e"),
        record("c", "x" * 20),
        record("d", "-" * 20 + " ja " * 20),
    ]
    empty = [
        record("e", "As an AI language model, I can’t say."),
        record("f", "Als KI-Sprachmodell weiß ich es nicht."),
        record("g", "x" * 21),
        record("h", "fine", " \n\t"),
        record("i", "#!/§$%&()=?+*~<>|-_.:,;^°"),
    ]
    done = filtered([*fit, *empty], boilerplate={})
    assert done.kept == fit
    assert done.report.filters["boilerplate"].reasons == {
        "stock phrase": 2,
        "one character more than 20 times in a row": 1,
        "blank": 1,
        "share of letters below 0.4": 1,
    }


def test_words_of_a_list_are_found_whole_in_any_text_of_a_record() -> None:
    earlier = (Message("user", "You IDIOT"), Message("assistant", "Sorry?"), Message("user", "Nothing."))
    inside = record("Does the idiotic plan of the Trottelbach work?", "No.")
    done = filtered([record(earlier), inside], toxic={"terms": ["idiot", "Trottel"]})
    assert done.kept == [inside]
    assert done.reasons("toxic") == ["prompt 0: 'IDIOT' is found, none passes"]


def test_patterns_drop_or_keep_what_they_match() -> None:
    json_like, prose = record("a", '{"x": 1}'), record("b", "no JSON")
    keep = {"name": "json", "pattern": r"^\s*\{(?s:.*)\}\s*$", "action": "keep", "text": "completion"}
    drop = {"name": "prose", "pattern": r"(?i)\bjson\b", "text": "completion"}
    assert filtered([json_like, prose], patterns=[keep]).kept == [json_like]
    done = filtered([json_like, prose], patterns=[drop])
    assert done.kept == [json_like]
    assert done.reasons("pattern prose") == ["completion 0: 'JSON' is found, none passes"]


@pytest.mark.parametrize("pattern", ["(", r"(?=x)y", r"(a)\1"])
def test_a_pattern_that_does_not_run_in_linear_time_or_does_not_compile_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"patterns\.0\.pattern"):
        FilterRecipe.model_validate({"patterns": [{"name": "bad", "pattern": pattern}]})


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ({"lenght": {}}, "lenght"),
        ({"length": {"min_prompt_words": 5, "max_prompt_words": 4}}, "min_prompt_words is 5"),
        ({"language": {"languages": ["klingon"]}}, "klingon"),
        ({"near_duplicates": {"threshold": 0.2}}, "near_duplicates.threshold"),
        ({"golden": None}, "golden"),
        ({"golden": {"threshold": 1}}, "golden.threshold"),
        ({"patterns": [{"name": "a", "pattern": "x"}, {"name": "a", "pattern": "y"}]}, "'a' is given twice"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused_by_the_name_of_its_knob(
    recipe: dict[str, object], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        FilterRecipe.model_validate(recipe)


def test_the_classifier_knows_the_languages_that_a_recipe_may_ask_for() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    from services.trainer.datasets.filters.recipe import LANGUAGES

    assert set(LanguageIdentifier.from_model_file(MODEL_FILE).labels) == LANGUAGES | {"zxx"}


def test_preferences_are_judged_by_all_their_completions() -> None:
    pair = record("Which?", "This one.", "As an AI language model I have none.", kind=Kind.PREFERENCE)
    assert filtered([pair], boilerplate={}).kept == []
