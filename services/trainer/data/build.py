"""The building subprocess: `python -m services.trainer.data.build SPEC.json`, its outcome as one JSON line on stdout.

It knows files, not the bus, the database or the object store. The way of the records is `_build`, top to bottom.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer.data import frozen_file, records
from services.trainer.data.build_spec import BuildFault, BuildSpec, Built, CannotBuild, Input, Unbuildable
from services.trainer.data.card import DataCard, RatingCard, SourceCard, SplitCard, Unusable
from services.trainer.data.columns import Row
from services.trainer.data.dataset import InvalidSample
from services.trainer.data.filters import FilterReport, apply
from services.trainer.data.frozen_file import FrozenFile
from services.trainer.data.golden.index import GoldenIndex
from services.trainer.data.records import Kind, Record
from services.trainer.data.rows import Unreadable, read_rows
from services.trainer.data.sorting import ROWS, IdSorter
from services.trainer.data.split import Splitter
from services.trainer.lifeline import claim_stdout, die_with

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FAULTS = 20


def main(spec_file: str) -> int:
    """Build what the spec says. 0 when built or refused with reasons, another status for a crash."""
    spec = BuildSpec.model_validate_json(Path(spec_file).read_bytes())
    die_with(spec.supervisor)
    out = claim_stdout()
    try:
        outcome: Built | Unbuildable = _build(spec)
    except CannotBuild as refused:
        outcome = Unbuildable(faults=refused.faults)
    out.write(outcome.model_dump_json() + "\n")
    out.flush()
    return 0


def _build(spec: BuildSpec) -> Built:
    read = [_Reading(one, spec.kind) for one in spec.inputs]
    filtered, golden = FilterReport(), _golden(spec)
    # Sorted before the filters, so that which of two near duplicates stays does not depend on who came first.
    raw = _sorter(spec, "raw")
    for reading in read:
        for batch in reading.batches():
            raw.add(batch)
    splitter = Splitter(spec.validation_part, spec.seed)
    fit = _sorter(spec, "fit")
    for batch in apply(raw.sorted(), spec.filters, golden, filtered):
        fit.add(splitter.assign(batch))
    frozen = frozen_file.write(
        (splitter.without_leaks(batch) for batch in fit.sorted()),
        data := spec.work / "data.parquet",
        domain=spec.domain,
        kind=spec.kind,
    )
    _check(spec, read, filtered, frozen)
    card = DataCard(
        dataset_id=frozen.dataset_id,
        domain=spec.domain,
        name=spec.name,
        kind=spec.kind,
        licence=spec.licence,
        adapter_type=spec.adapter_type,
        samples=frozen.samples,
        synthetic=frozen.synthetic,
        repeated=raw.repeated,
        origins=frozen.origins,
        split=SplitCard(
            validation_part=spec.validation_part,
            seed=spec.seed,
            train=frozen.samples - frozen.validation_samples,
            validation=frozen.validation_samples,
            synthetic_left_out=splitter.leaking,
        ),
        ratings=RatingCard(rated=frozen.rated, mean=frozen.mean_rating),
        sources=tuple(reading.card() for reading in read),
        filters=spec.filters,
        filtered=filtered,
        generators=spec.generators,
        generated={},
        generated_filtered=FilterReport(),
        environment={"pyarrow": version("pyarrow")},
    )
    path = spec.work / "card.json"
    path.write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Built(
        dataset_id=frozen.dataset_id,
        data=data,
        card=path,
        samples=frozen.samples,
        validation_samples=frozen.validation_samples,
    )


class _Reading:
    """One input while it is read, and what it gave."""

    def __init__(self, given: Input, kind: Kind) -> None:
        self._given = given
        self._kind = kind
        self._counted = Counter[str]()
        self._unusable: list[Unusable] = []

    def batches(self) -> Iterator["pa.RecordBatch"]:
        """Its records; raises `CannotBuild` for a file or row that the input does not put up with."""
        waiting: list[Record] = []
        for record in self._records():
            waiting.append(record)
            if len(waiting) == ROWS:
                yield _batch(waiting)
                waiting = []
        if self._unusable and self._given.unusable == "refuse":
            raise CannotBuild(*(_fault(self._given, row.place, row.reason) for row in self._unusable))
        if waiting:
            yield _batch(waiting)

    def card(self) -> SourceCard:
        """What it gave; complete once the batches are taken."""
        return SourceCard(
            described=self._given.described,
            rows=self._counted["rows"],
            records=self._counted["records"],
            unusable=self._counted["unusable"],
            examples=tuple(self._unusable),
        )

    def _records(self) -> Iterator[Record]:
        for file in self._given.files:
            try:
                for number, row in read_rows(file):
                    self._counted["rows"] += 1
                    try:
                        record = self._record(row, from_records=file.format == "records")
                    except InvalidSample as error:
                        self._note(Unusable(place=f"{file.name} row {number}", reason=str(error)))
                        if len(self._unusable) == MAX_FAULTS and self._given.unusable == "refuse":
                            return
                        continue
                    self._counted["records"] += 1
                    yield record
            except Unreadable as error:
                raise CannotBuild(
                    _fault(self._given, error.file, f"{error.found}, expected {error.expected}")
                ) from error

    def _record(self, row: Row, *, from_records: bool) -> Record:
        if from_records:
            return Record.of_values(row)
        return self._given.columns.record(row, self._kind, self._given.origin)

    def _note(self, unusable: Unusable) -> None:
        self._counted["unusable"] += 1
        if len(self._unusable) < MAX_FAULTS:
            self._unusable.append(unusable)


def _batch(made: list[Record]) -> "pa.RecordBatch":
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([record.values() for record in made], schema=records.schema())


def _sorter(spec: BuildSpec, name: str) -> IdSorter:
    folder = spec.work / name
    folder.mkdir()
    return IdSorter(folder)


def _golden(spec: BuildSpec) -> GoldenIndex | None:
    return GoldenIndex.load(spec.golden) if spec.golden else None


def _check(spec: BuildSpec, read: list[_Reading], filtered: FilterReport, frozen: FrozenFile) -> None:
    """An empty data set, or one that only validates, is none."""
    if frozen.samples > frozen.validation_samples:
        return
    cards = [reading.card() for reading in read]
    if frozen.samples:
        faulty = BuildFault(
            field="validation_part",
            value=f"{spec.validation_part:g} of {frozen.samples} records",
            expected="a smaller part or more records: none is left to train on",
        )
        raise CannotBuild(faulty)
    if filtered.received:
        dropped = {name: count.dropped for name, count in filtered.filters.items() if count.dropped}
        said = ", ".join(f"{name} {count}" for name, count in dropped.items())
        raise CannotBuild(
            BuildFault(
                field="filters", value=f"{filtered.received} records, all dropped ({said})", expected="laxer ones"
            )
        )
    said = "; ".join(
        f"{one.field}: {card.rows} rows, {card.unusable} unusable"
        + (f" ({card.examples[0].place}: {card.examples[0].reason})" if card.examples else "")
        for one, card in zip(spec.inputs, cards, strict=True)
    )
    raise CannotBuild(BuildFault(field="sources", value=f"no record ({said})", expected="sources with usable rows"))


def _fault(given: Input, place: str, reason: str) -> BuildFault:
    found, _, expected = reason.partition(", expected ")
    return BuildFault(field=given.field, value=f"{place}: {found}", expected=expected or "another file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
