"""Frozen data sets are a function of their records alone, and a prompt is on one side of the split."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.datasets import dataset_file, records
from services.trainer.datasets.dataset import InvalidSample, Preference, Sample
from services.trainer.datasets.dataset_file import FrozenFile, dataset_id_of
from services.trainer.datasets.records import Kind, Record, prompt_messages
from services.trainer.datasets.worker import sorting
from services.trainer.datasets.worker.sorting import IdSorter
from services.trainer.datasets.worker.split import Splitter

pytestmark = pytest.mark.unit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
RATINGS = st.one_of(st.none(), st.sampled_from([0.0, 2.5, 5.0]))
RECORDS = st.lists(
    st.builds(
        Record,
        kind=st.just(Kind.COMPLETION),
        prompt=TEXT.map(prompt_messages),
        completions=st.tuples(TEXT),
        rating=RATINGS,
        origin=st.sampled_from(["a", "b"]),
        synthetic=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def batch(of: Iterable[Record]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([record.values() for record in of], schema=records.schema())


def frozen(given: list[Record], path: Path, *, part: float = 0.0, domain: str = "shop") -> FrozenFile:
    """What the builder does with records that no filter drops."""
    splitter, sorter = Splitter(part, seed=7), IdSorter(path.parent)
    for start in range(0, len(given), 5):
        sorter.add(splitter.assign(batch(given[start : start + 5])))
    batches = (splitter.without_leaks(one) for one in sorter.sorted())
    return dataset_file.write(batches, path, domain=domain, kind=Kind.COMPLETION)


@settings(deadline=None)
@given(RECORDS, st.randoms(), st.sampled_from([0.0, 0.4]))
def test_order_and_repetition_change_neither_the_id_nor_a_byte(
    made: list[Record], chance: random.Random, part: float
) -> None:
    shuffled = [*made, *made]
    chance.shuffle(shuffled)
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "first.parquet", Path(folder) / "second.parquet"
        assert frozen(made, first, part=part) == frozen(shuffled, second, part=part)
        assert first.read_bytes() == second.read_bytes()


@settings(deadline=None)
@given(RECORDS)
def test_the_id_is_a_digest_of_what_the_records_say(made: list[Record]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        dataset = frozen(made, path)
        read = list(records.read(path))
        assert dataset.dataset_id == dataset_id_of("shop", Kind.COMPLETION, read)
        assert dataset.dataset_id != dataset_id_of("bank", Kind.COMPLETION, read)
        assert [record.record_id for record in read] == sorted({record.record_id for record in made})
        changed = [replace(read[0], rating=1.0), *read[1:]]
        assert dataset.dataset_id != dataset_id_of("shop", Kind.COMPLETION, changed)


@settings(deadline=None)
@given(RECORDS)
def test_no_prompt_is_on_both_sides_and_nothing_synthetic_validates(made: list[Record]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        dataset = frozen(made, path, part=0.5)
        read = list(records.read(path))
    sides = {side: {one.prompt_key for one in read if one.split == side} for side in ("train", "validation")}
    assert not sides["train"] & sides["validation"]
    assert not any(one.synthetic for one in read if one.split == "validation")
    assert dataset.validation_samples == sum(one.split == "validation" for one in read)
    # Whatever is left out is synthetic and asks what a validating record asks.
    lost = {one.record_id: one for one in made}.keys() - {one.record_id for one in read}
    assert all(one.synthetic and one.prompt_key in sides["validation"] for one in made if one.record_id in lost)


def test_about_the_asked_part_of_the_prompts_validates_and_another_seed_draws_others() -> None:
    many = [Record(Kind.COMPLETION, prompt_messages(f"prompt {n}"), ("answer",)) for n in range(2000)]
    drawn = [Splitter(0.2, seed).assign(batch(many))["split"].to_pylist() for seed in (1, 2)]
    assert all(340 < sides.count("validation") < 460 for sides in drawn)
    assert drawn[0] != drawn[1]


@settings(max_examples=10, deadline=None)
@given(RECORDS)
def test_sorting_through_files_gives_what_sorting_in_memory_gives(made: list[Record]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        held = frozen(made, Path(folder) / "held.parquet", part=0.3)
        patched.setattr(sorting, "BUFFER_BYTES", 1)  # every batch goes to the files
        assert frozen(made, Path(folder) / "spilled.parquet", part=0.3) == held
        assert not list(Path(folder).glob("*.arrow"))


def test_of_two_ratings_of_one_record_the_lower_stays_and_a_rating_goes_before_none() -> None:
    same = [Record(Kind.COMPLETION, prompt_messages("p"), ("c",), rating) for rating in (None, 5.0, 2.0)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        frozen(same, path)
        assert [one.rating for one in records.read(path)] == [2.0]


def test_rating_and_origin_are_no_part_of_a_sample_s_content() -> None:
    assert Sample("shop", "p", "c").sample_id == Sample("shop", "p", "c", 4.0, "http", "x").sample_id


@pytest.mark.parametrize("text", ["", "  \n", "nul\x00", "half \ud800 pair", "x" * 200_001])
def test_text_that_cannot_be_stored_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(InvalidSample, match=r"^completion: "):
        Sample("shop", "p", text).check()


def test_two_equal_completions_are_no_preference() -> None:
    with pytest.raises(InvalidSample, match=r"^rejected: "):
        Preference("shop", "p", "same", "same").check()
