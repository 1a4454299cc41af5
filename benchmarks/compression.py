"""What quantised storage leaves of an adapter's size, and what it costs in accuracy."""

from benchmarks.peers import Bench
from benchmarks.report import Row
from lora_core.compression_quality import matrix_error, measure_difference
from lora_core.format.arrow_format import LoRAFormat

PROMPTS = (
    "The pump on deck three has lost pressure and the crew asks what to check first.",
    "Write a short answer to a customer whose parcel arrived two days late.",
    "def parse(line: str) -> tuple[str, int]:\n    name, _, count = line.partition(':')\n",
    "In the autumn of 1851 the first cable was laid across the strait, and within a week",
)


def compressing(bench: Bench) -> list[Row]:
    """Adapters in quantised storage: what is left of their size, and what it costs in accuracy."""
    rows: list[Row] = []
    prompts = [bench.engine.tokenizer(text)["input_ids"] for text in PROMPTS]
    for storage, most in (("int8", 0.55), ("int4", 0.3)):
        path = bench.folder / f"{storage}.arrow"
        LoRAFormat.save(bench.card, path, storage)  # type: ignore[arg-type]
        small = LoRAFormat.load(path)
        other = measure_difference(bench.engine, bench.card, small, prompts)
        size = path.stat().st_size / bench.files[0].arrow.stat().st_size
        rows.append(
            Row(
                what=f"{storage} storage: size of the file",
                unit="× the float16 file",
                ours=size,
                limit={"int8": 0.5, "int4": 0.25}[storage],
                ask=f"at most {most:g}",
                met=size <= most,
                n=other.positions,
                note=f"matrices off by {100 * matrix_error(bench.card, small):.2f} %; over {other.positions} positions "
                f"the same token preferred at {100 * other.agreement:.1f} %, divergence {other.divergence:.2g} nats, "
                f"largest difference of a logit {other.logit:.2g}; an adapter of random matrices",
            )
        )
    return rows
