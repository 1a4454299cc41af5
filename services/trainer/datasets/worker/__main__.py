"""The building subprocess: `python -m services.trainer.datasets.worker SPEC.json`; one JSON line on stdout.

It knows files, not the bus, the database or the object store. The way of the records is `_build`, top to bottom.
"""

import resource
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from services.trainer import cpu_priority
from services.trainer.datasets import dataset_file, records
from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.dataset_file import FrozenFile
from services.trainer.datasets.filters import FilterReport, apply
from services.trainer.datasets.generators import GenerationReport, generate
from services.trainer.datasets.generators.endpoint import EndpointFailed
from services.trainer.datasets.golden.index import GoldenIndex
from services.trainer.datasets.records import Record
from services.trainer.datasets.worker.card import DataCard, RatingCard, SplitCard
from services.trainer.datasets.worker.inputs import InputReader, People, batches_of
from services.trainer.datasets.worker.progress_file import BuildPositionFile
from services.trainer.datasets.worker.sorting import IdSorter
from services.trainer.datasets.worker.spec import BuildSpec, Built, Unbuildable
from services.trainer.datasets.worker.split import Splitter
from services.trainer.parent_death import claim_stdout, die_with

if TYPE_CHECKING:
    import pyarrow as pa


def main(spec_file: str) -> int:
    """Build what the spec describes. 0 when built or refused with reasons, another status for a crash."""
    spec = BuildSpec.model_validate_json(Path(spec_file).read_bytes())
    cpu_priority.lower()
    die_with(spec.supervisor)
    out = claim_stdout()
    _bound_memory(spec.memory_bytes)
    try:
        outcome: Built | Unbuildable = _build(spec)
    except CannotBuild as refused:
        outcome = Unbuildable(faults=refused.faults)
    except MemoryError:  # Arrow's own is one of these
        outcome = Unbuildable(faults=(_too_large(spec),))
    out.write(outcome.model_dump_json() + "\n")
    out.flush()
    return 0


def _build(spec: BuildSpec) -> Built:
    place = BuildPositionFile(spec.work)
    people = People(bytes.fromhex(spec.subject_key), spec.forgotten)
    read = [InputReader(one, spec.kind, place, people, limit=spec.source_bytes) for one in spec.inputs]
    golden = GoldenIndex.load(spec.golden) if spec.golden else None
    splitter, filtered = Splitter(spec.validation_part, spec.seed), FilterReport()

    # Sorted before the filters, so that which of two near duplicates stays does not depend on who came first.
    raw = _sorter(spec, "raw")
    for reader in read:
        for batch in reader.batches():
            raw.add(batch)
    place.write("filters", "filters")
    fit = _sorter(spec, "fit")
    for batch in apply(raw.sorted(), spec.filters, golden, filtered):
        fit.add(splitter.assign(batch))
    data = spec.work / "data.parquet"
    frozen = _write(spec, fit, splitter, data)
    _check(spec, read, filtered, frozen)

    generated, generated_filtered = GenerationReport(), FilterReport()
    if spec.generators.generators:
        place.write("generators", "generators")
        grown = _sorter(spec, "grown")
        for batch in _read(data):
            grown.add(_validating(batch) if spec.generators.replaces else batch)
        made = batches_of(_generate(spec, data, generated))
        for batch in apply(made, spec.filters, golden, generated_filtered):
            grown.add(splitter.assign(batch))
        data = spec.work / "grown.parquet"
        frozen = _write(spec, grown, splitter, data)
        if frozen.samples == frozen.validation_samples:
            raise CannotBuild(_nothing_made(generated))

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
        sources=tuple(reader.card() for reader in read),
        filters=spec.filters,
        filtered=filtered,
        generators=spec.generators,
        generated=generated,
        generated_filtered=generated_filtered,
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


def _bound_memory(most: int) -> None:
    # Private writable memory alone: allocators reserve far more addresses than they ever use.
    if most and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _too_large(spec: BuildSpec) -> BuildFault:
    place = BuildPositionFile(spec.work).read()
    return BuildFault(
        field=place.field,
        value=f"{place.name}: it needs more than {spec.memory_bytes} bytes of memory",
        expected="smaller rows, or a higher LORAFLEET_BUILD_MEMORY_BYTES",
    )


def _sorter(spec: BuildSpec, name: str) -> IdSorter:
    folder = spec.work / name
    folder.mkdir()
    return IdSorter(folder)


def _write(spec: BuildSpec, sorter: IdSorter, splitter: Splitter, path: Path) -> FrozenFile:
    batches = (kept for batch in sorter.sorted() if len(kept := splitter.without_leaks(batch)))
    return dataset_file.write(batches, path, domain=spec.domain, kind=spec.kind)


def _read(path: Path) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=1024)


def _validating(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """The records of a batch that are validated with."""
    import pyarrow as pa

    return batch.filter(pa.array([split == "validation" for split in batch["split"].to_pylist()], pa.bool_()))


def _nothing_made(report: GenerationReport) -> BuildFault:
    counts = ", ".join(f"{name}: {one.cut} cut, {one.blank} blank" for name, one in report.generators.items())
    return BuildFault(field="generators", value=f"no answer of use ({counts})", expected="a longer max_tokens")


def _generate(spec: BuildSpec, path: Path, report: GenerationReport) -> Iterator[Record]:
    """Generated records, made of what is trained on alone: no wording of a validating prompt is ever trained on."""

    def trained_on() -> Iterator[Record]:
        return (record for record in records.read(path) if record.split == "train" and not record.synthetic)

    try:
        yield from generate(spec.generators, spec.kind, trained_on, spec.endpoints, report)
    except EndpointFailed as error:
        raise CannotBuild(
            BuildFault(field="generators", value=str(error), expected="an endpoint that answers")
        ) from error


def _check(spec: BuildSpec, read: Sequence[InputReader], filtered: FilterReport, frozen: FrozenFile) -> None:
    """An empty data set, or one that only validates, is none."""
    if frozen.samples > frozen.validation_samples:
        return
    if frozen.samples:
        faulty = BuildFault(
            field="validation_part",
            value=f"{spec.validation_part:g} of {frozen.samples} records",
            expected="a smaller part or more records: none is left to train on",
        )
        raise CannotBuild(faulty)
    if filtered.received:
        dropped = {name: count.dropped for name, count in filtered.filters.items() if count.dropped}
        summary = ", ".join(f"{name} {count}" for name, count in dropped.items())
        raise CannotBuild(
            BuildFault(
                field="filters",
                value=f"{filtered.received} records, all dropped ({summary})",
                expected="records that no golden data set holds" if list(dropped) == ["golden"] else "laxer ones",
            )
        )
    summary = "; ".join(
        f"{reader.field}: {card.rows} rows, {card.unusable} unusable"
        + (f", {card.forgotten} of forgotten people" if card.forgotten else "")
        + (f" ({card.examples[0].place}: {card.examples[0].reason})" if card.examples else "")
        for reader, card in ((one, one.card()) for one in read)
    )
    raise CannotBuild(BuildFault(field="sources", value=f"no record ({summary})", expected="sources with usable rows"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
