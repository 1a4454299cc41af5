"""What holds of filters whatever the records: order, nothing invented, nothing left to do twice; golden data first."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet_kit.text_fingerprints import digest, exact_form, word_form
from services.trainer.datasets.golden.index import GoldenIndex
from services.trainer.datasets.records import Message, Record
from tests.unit.trainer.filtering import filtered, golden, record

pytestmark = [pytest.mark.unit, pytest.mark.requirement("AS-3.1")]

QUESTION = "Within how many days must a tenant be told in writing that a part of the deposit is kept by the owner?"
LIKE = QUESTION.replace("owner", "landlord")

WORDS = st.sampled_from(
    [
        "Miete",
        "deposit",
        "Größe",
        "a@b.org",
        "+49 30 1234567",
        "Ärger",
        "the",
        "und",
        "!!!",
        "契約",
        "DE89370400440532013000",
        "\n",
    ]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
RECORDS = st.lists(
    st.builds(
        lambda prompt, completions, rating: record(prompt, *completions, rating=rating),
        TEXTS,
        st.lists(TEXTS, min_size=1, max_size=3),
        st.none() | st.integers(0, 5).map(float),
    ),
    max_size=20,
)
ALL = {
    "length": {"max_prompt_words": 11, "min_completion_characters": 3},
    "rating": {"min_rating": 1},
    "patterns": [{"name": "both", "pattern": "the.*und"}],
    "boilerplate": {"phrases": ["Ärger Ärger"]},
    "toxic": {"terms": ["größe größe"]},
    "language": {"languages": ["de", "en"]},
    "exact_duplicates": {},
    "near_duplicates": {"threshold": 0.7},
}


@settings(max_examples=25, deadline=None)
@given(RECORDS)
def test_filters_keep_the_order_and_invent_nothing(records: list[Record]) -> None:
    done = filtered(records, **ALL)
    rest = iter(records)
    assert all(any(one == other for other in rest) for one in done.kept)
    dropped = sum(count.dropped for count in done.report.filters.values())
    assert (done.report.received, done.report.kept) == (len(records), len(done.kept))
    assert dropped == len(records) - len(done.kept)


@settings(max_examples=25, deadline=None)
@given(RECORDS)
def test_what_came_through_comes_through_again_unchanged(records: list[Record]) -> None:
    recipe = {**ALL, "personal": {}}
    kept = filtered(records, **recipe).kept
    assert filtered(kept, **recipe).kept == kept


@settings(max_examples=25, deadline=None)
@given(RECORDS, st.integers(1, 7))
def test_the_length_of_batches_makes_no_difference(records: list[Record], size: int) -> None:
    assert filtered(records, size=size, **ALL).kept == filtered(records, **ALL).kept


@settings(deadline=None)
@example("0 \x1f")
@example("a \x1f \x1e b")
@given(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=200))
def test_columns_of_texts_have_the_forms_of_single_texts(text: str) -> None:
    import polars as pl

    from services.trainer.datasets.filters.text_forms import exact_forms, word_forms

    assert exact_forms(pl.Series([text])).to_list() == [exact_form(text)]
    assert word_forms(pl.Series([text])).to_list() == [word_form(text)]


def test_a_record_whose_prompt_is_golden_is_dropped_with_the_name_and_version_of_the_set() -> None:
    exam = golden(QUESTION, "What is 1+1?", reference="lease@2.1.0")
    equal = record("  " + QUESTION.upper(), "Thirty.")
    like = record(LIKE, "Thirty.")
    talk = record((Message("user", "What is 1+1?"), Message("assistant", "2"), Message("user", "And 2+2?")), "4")
    other = record("What is 2+2?", "4")
    done = filtered([equal, like, talk, other], golden=exam)
    assert done.kept == [other]
    assert done.report.golden == {"lease@2.1.0": 3}
    assert done.reasons("golden")[0] == "prompt: similarity 1.00 to one of lease@2.1.0, below 0.8 passes"


def test_masking_does_not_hide_a_golden_prompt_and_cannot_make_one() -> None:
    exam = golden("What belongs to ann@example.org here?", "Who is [EMAIL] in this file?")
    hidden = record("What belongs to ann@example.org here?", "All.")
    made = record("Who is bob@example.org in this file?", "Bob.")
    assert filtered([hidden, made], golden=exam, personal={}).kept == []


def test_signatures_of_another_scheme_are_left_alone_and_digests_still_count() -> None:
    exam = golden(QUESTION, scheme="words9-other-64")
    like = record(LIKE, "Thirty.")
    assert filtered([record(QUESTION), like], golden=exam).kept == [like]


def test_texts_without_a_word_are_like_no_golden_prompt() -> None:
    assert len(filtered([record("!!!"), record("…")], golden=golden("???")).kept) == 2


def test_an_index_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    exam = golden(QUESTION, "What is 1+1?")
    exam.dump(tmp_path / "golden.jsonl")
    assert GoldenIndex.load(tmp_path / "golden.jsonl") == exam
    assert "tenant" not in (tmp_path / "golden.jsonl").read_text()
    (overlap,) = exam.overlaps([QUESTION.lower()])
    assert overlap is not None
    assert overlap.references == ("exam@1.0.0",)


def test_a_report_goes_through_json() -> None:
    done = filtered([record("a"), record("A")], exact_duplicates={})
    shown = json.loads(done.report.model_dump_json())
    assert shown["filters"]["exact_duplicates"]["samples"][0]["id"] == record("A").record_id
    assert len(digest("a")) == 32


def test_keys_seen_before_are_found_among_many_runs_and_no_others() -> None:
    import numpy as np

    from services.trainer.datasets.filters.first_seen import FirstSeen

    keys = np.frombuffer(
        b"".join(hashlib.sha256(bytes([a, b])).digest()[:8] for a in range(60) for b in range(200)), "u8"
    )
    seen = FirstSeen()
    for start in range(0, 10_000, 137):
        part = keys[start : min(start + 137, 10_000)]
        seen.add(part, np.arange(start, start + len(part)))
    found = seen.find(keys)
    assert found[:10_000].tolist() == list(range(10_000))
    assert set(found[10_000:].tolist()) == {-1}
