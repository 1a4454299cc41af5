"""Generators that need no server, and what their recipes refuse."""

import pytest
from pydantic import ValidationError

from services.trainer.datasets.build_fault import CannotBuild
from services.trainer.datasets.generators import GenerationReport, GeneratorRecipe, check, generate
from services.trainer.datasets.records import Kind, Message, Record, prompt_messages

pytestmark = [pytest.mark.unit, pytest.mark.requirement("AS-3.1")]

TALK = Record(
    Kind.CONVERSATION,
    (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Who am I?"),
    ),
    ("A guest.",),
    rating=5.0,
)


def made(of: Kind, /, *records: Record, **generator: object) -> list[Record]:
    recipe = GeneratorRecipe.model_validate({"generators": [{"name": "one", **generator}]})
    return list(generate(recipe, of, lambda: iter(records), {}, GenerationReport()))


def greetings(**more: object) -> dict[str, object]:
    return {
        "kind": "template",
        "prompt": "How do I greet a {who} in the {when}?",
        "completion": "{word}, {who}! {{smile}}",
        "slots": {"who": ["Kollegin", "{boss}"], "when": ["morning", "evening"], "word": ["Moin", "Servus", "Grüezi"]},
        **more,
    }


def test_a_template_is_filled_with_every_combination_and_marked_as_synthetic() -> None:
    records = made(Kind.COMPLETION, **greetings())
    assert len({one.record_id for one in records}) == 12
    assert records[0].prompt == prompt_messages("How do I greet a Kollegin in the morning?")
    assert records[0].completions == ("Moin, Kollegin! {smile}",)
    assert records[-1].completions == ("Grüezi, {boss}! {smile}",)
    assert all(one.synthetic and one.split == "train" and one.origin == "template one" for one in records)


def test_fewer_than_all_combinations_are_drawn_alike_with_the_same_seed() -> None:
    some, again = (made(Kind.COMPLETION, **greetings(at_most=5, seed=3)) for _ in range(2))
    everything = [one.record_id for one in made(Kind.COMPLETION, **greetings())]
    assert some == again
    assert len(some) == 5
    assert [one.record_id for one in some] == sorted((one.record_id for one in some), key=everything.index)
    assert some != made(Kind.COMPLETION, **greetings(at_most=5, seed=4))


def test_a_paraphrase_changes_the_last_user_message_and_nothing_else_of_the_talk() -> None:
    (record,) = made(Kind.CONVERSATION, TALK, kind="paraphrase", forms=["Please: {prompt}"])
    assert record.prompt == (*TALK.prompt[:-1], Message("user", "Please: Who am I?"))
    assert (record.completions, record.rating) == (TALK.completions, None)
    assert (record.synthetic, record.source_id, record.origin) == (True, TALK.record_id, "paraphrase one")


def test_a_paraphrase_of_a_rated_answer_keeps_its_rating_which_is_what_it_teaches() -> None:
    rated = Record(Kind.RATED, prompt_messages("Why?"), ("So.",), rating=2.0)
    (record,) = made(Kind.RATED, rated, kind="paraphrase", forms=["{prompt} Please."])
    assert record.rating == 2.0


def test_which_forms_a_record_gets_does_not_depend_on_the_other_records() -> None:
    forms = {"kind": "paraphrase", "forms": [f"{number}: {{prompt}}" for number in range(9)], "per_record": 2}
    talks = [Record(Kind.COMPLETION, prompt_messages(f"Question {number}?"), ("Yes.",)) for number in range(5)]
    assert made(Kind.COMPLETION, *talks, **forms)[-2:] == made(Kind.COMPLETION, talks[-1], **forms)


@pytest.mark.parametrize(
    ("generator", "named"),
    [
        (greetings(slots={"who": ["a"], "when": ["b"]}), "'word'"),
        (greetings(slots={"who": ["a"], "when": ["b"], "word": ["c"], "more": ["d"]}), "slots.more"),
        (greetings(prompt="{who.__class__}{when}"), "is no slot"),
        ({"kind": "paraphrase", "forms": ["Please"]}, "forms.0"),
        ({"kind": "back_generation", "instruction": "Tell me something."}, "instruction"),
        ({"kind": "back_generation", "temprature": 1}, "temprature"),
    ],
)
def test_a_generator_that_cannot_be_meant_is_refused_by_name(generator: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        GeneratorRecipe.model_validate({"generators": [{"name": "one", **generator}]})


def test_a_generator_that_does_not_fit_the_data_set_is_refused_before_anything_is_built() -> None:
    answers = {"name": "one", "kind": "back_generation", "makes": "completion", "instruction": "{prompt}"}
    recipe = GeneratorRecipe.model_validate({"generators": [answers]})
    with pytest.raises(CannotBuild, match=r"generators\.0\.makes: 'completion' for records of kind 'preference'"):
        check(recipe, Kind.PREFERENCE, {"inference": None})
    with pytest.raises(CannotBuild, match=r"generators\.0\.endpoint: 'inference' is refused, expected other"):
        check(recipe, Kind.COMPLETION, {"other": None})
    check(recipe, Kind.COMPLETION, {"inference": None})
