"""Golden samples as JSONL: there and back, and every bad line by number and field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluator.domain import BadVersion, next_version, parse_version, split_reference
from services.evaluator.golden.samples import (
    BadLines,
    GoldenSample,
    Turn,
    digest,
    merge,
    read_jsonl,
    to_line,
    write_jsonl,
)

LINE = {"prompt": "How long?", "expected_output": "At most 45 days."}


def line(**changes: object) -> str:
    return json.dumps({**LINE, **changes})


storable = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
text = st.text(storable, min_size=1, max_size=80).filter(lambda t: t.strip())
sample = st.builds(
    GoldenSample,
    sample_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True),
    prompt=text,
    expected_output=text,
    expected_score=st.floats(0, 1),
    difficulty=st.sampled_from(["easy", "medium", "hard"]),
    criteria=st.dictionaries(st.sampled_from(["style", "accuracy"]), st.just("note: be kind"), max_size=2),
    context=st.text(storable, max_size=40),
    system=st.text(storable, max_size=40),
    history=st.lists(st.tuples(text, text), max_size=2).map(
        lambda pairs: tuple(
            Turn(role, content) for pair in pairs for role, content in zip(("user", "assistant"), pair, strict=True)
        )
    ),
)
samples = st.lists(sample, min_size=1, max_size=6, unique_by=lambda s: s.sample_id)


@pytest.mark.requirement("LA-2.3")
@given(samples)
def test_samples_come_back_from_jsonl_as_they_were(written):
    assert read_jsonl(write_jsonl(written), "shop") == written


@given(samples, st.randoms())
def test_the_digest_depends_on_content_and_not_on_order(written, random):
    shuffled = list(written)
    random.shuffle(shuffled)
    assert digest(shuffled) == digest(written)
    changed = [GoldenSample(**{**written[0].__dict__, "prompt": written[0].prompt + "?"}), *written[1:]]
    assert digest(changed) != digest(written)
    assert digest(written, "prompt") != digest(written, "note")


ASKED, ANSWERED = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}


def test_a_conversation_is_asked_as_it_went_and_the_question_comes_last():
    (read,) = read_jsonl(line(system="Be brief.", history=[ASKED, ANSWERED], context="Page 3"), "shop")
    assert read.messages("prompt") == [
        {"role": "system", "content": "Be brief."},
        ASKED,
        ANSWERED,
        {"role": "user", "content": "Page 3\n\nHow long?"},
    ]
    (single,) = read_jsonl(line(), "shop")
    assert single.messages("note") == [{"role": "user", "content": "How long?"}]
    assert single.sample_id != read.sample_id


def test_content_from_before_conversations_keeps_its_digest():
    (single,) = read_jsonl(line(sample_id="s1"), "shop")
    assert json.loads(to_line(single)).keys() == {
        *("sample_id", "prompt", "expected_output", "expected_score", "difficulty", "criteria", "context")
    }
    (talk,) = read_jsonl(line(sample_id="s1", history=[ASKED, ANSWERED]), "shop")
    (told,) = read_jsonl(line(sample_id="s1", system="Be brief."), "shop")
    assert len({digest([one]) for one in (single, talk, told)}) == 3


@pytest.mark.parametrize(
    ("history", "field"),
    [
        ([ANSWERED, ASKED], "history.0.role"),
        ([ASKED, ASKED], "history.1.role"),
        ([ASKED], "history"),
        ([{"role": "system", "content": "x"}, ANSWERED], "history.0.role"),
        ([{"role": "user", "content": ""}, ANSWERED], "history.0.content"),
    ],
)
def test_a_conversation_that_does_not_alternate_is_refused_with_the_turn(history, field):
    with pytest.raises(BadLines) as caught:
        read_jsonl(line(history=history), "shop")
    assert caught.value.errors[0].field == field


@pytest.mark.requirement("LA-2.2")
def test_a_full_sample_keeps_every_field():
    (read,) = read_jsonl(
        line(
            sample_id="verwalt-001",
            expected_score=0.95,
            difficulty="hard",
            criteria={"accuracy": "Must mention 45 days"},
            context="Handbook, chapter 3",
        ),
        "shop",
    )
    assert read == GoldenSample(
        "verwalt-001",
        "How long?",
        "At most 45 days.",
        0.95,
        "hard",
        {"accuracy": "Must mention 45 days"},
        "Handbook, chapter 3",
    )
    assert read.question("note") == "How long?"
    assert read.question("prompt") == "Handbook, chapter 3\n\nHow long?"


def test_a_sample_without_id_gets_the_same_one_each_time():
    first, second = read_jsonl(line(), "shop"), read_jsonl(line(), "shop")
    assert first == second
    assert first[0].sample_id.startswith("s-")


@pytest.mark.requirement("LA-2.3")
def test_every_bad_line_is_named_by_number_and_field():
    body = "\n".join(
        [
            line(sample_id="a"),
            "",
            "no json",
            line(difficulty="extreme"),
            line(expected_score=1.5),
            line(prompt="  "),
            line(surprise=1),
            line(criteria={"accuracy": "be nice"}),
            line(criteria={"accuracy": "Must mention 30 days"}),
            line(sample_id="a"),
            line(domain="other"),
            '{"prompt": 3}',
            "[1]",
        ]
    )
    with pytest.raises(BadLines) as refused:
        read_jsonl(body, "shop")
    assert [(error.line, error.field) for error in refused.value.errors] == [
        (3, "(line)"),
        (4, "difficulty"),
        (5, "expected_score"),
        (6, "prompt"),
        (7, "surprise"),
        (8, "criteria.accuracy"),
        (9, "criteria.accuracy"),
        (10, "sample_id"),
        (11, "domain"),
        (12, "prompt"),
        (12, "expected_output"),
        (13, "(line)"),
    ]
    assert "'easy', 'medium' or 'hard'" in refused.value.errors[1].detail
    assert "itself breaks 'Must mention 30 days'" in refused.value.errors[6].detail
    assert "line 1 already" in refused.value.errors[7].detail


def test_an_empty_import_is_refused():
    with pytest.raises(BadLines, match="holds no sample"):
        read_jsonl(" \n\n", "shop")


def test_line_separators_inside_a_text_do_not_split_a_line():
    (read,) = read_jsonl(json.dumps({**LINE, "prompt": "a\u2028b\u0085c\x1cd"}, ensure_ascii=False), "shop")
    assert read.prompt == "a\u2028b\u0085c\x1cd"


def test_merging_replaces_the_same_id_in_its_place_and_appends_others():
    a, b, c = (GoldenSample(i, "p", "e") for i in "abc")
    changed = GoldenSample("a", "p2", "e")
    assert merge([a, b], [changed, c]) == [changed, b, c]


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "", "1.0.0\n"])
def test_a_version_that_is_none_is_refused(version):
    with pytest.raises(BadVersion, match=r"1\.0\.0"):
        parse_version(version)


def test_a_changed_data_set_is_the_next_minor_version():
    assert next_version("1.2.3") == "1.3.0"
    assert split_reference("shop-golden@1.2.0") == ("shop-golden", "1.2.0")
    assert split_reference("shop-golden") == ("shop-golden", None)


def test_whom_a_sample_is_about_is_kept_and_is_no_part_of_what_is_judged() -> None:
    [named], [bare] = (read_jsonl(line(**more), "tax") for more in ({"subject": "anna"}, {}))
    assert read_jsonl(write_jsonl([named]), "tax") == [named]
    assert (named.subject, digest([named])) == ("anna", digest([bare]))
