"""What training costs and teaches: `python -m benchmarks.training [--quick] [--json FILE]`.

Speed beside TRL + PEFT, the anatomy of a step, and (with the data that LORAFLEET_CLINC150 names) an intent classifier,
preferences, rankings and methods on real utterances. Data sets at scale: `python -m benchmarks.training_data`.
"""

import random
import sys
from pathlib import Path

from benchmarks.clinc import DATA, Clinc, data_folder
from benchmarks.report import Row, emit, options
from benchmarks.training_proof import classify, proofs
from benchmarks.training_speed import anatomy, compare
from fleet_cli.stack import prepare_base_model
from fleet_cli.stack.home import Home, default_home
from services.trainer.datasets.records import Kind, Record, prompt_messages


def main(arguments: list[str] | None = None) -> int:
    """All rows; without the real data those that need none."""
    chosen = options(__doc__ or "", arguments)
    model = prepare_base_model(Home(default_home()).models).path
    steps, seeds = (4, 1) if chosen.quick else (10, 2)
    rows: list[Row] = []

    def kept(more: list[Row]) -> None:
        rows.extend(more)
        emit(rows, chosen.json, out=lambda _: None)  # what is measured stays, should a later part fail
        for row in more:
            print(
                f"{row.what}: {row.ours} {row.unit} {row.peers} ratio {row.ratio} met {row.met} {row.note}",
                flush=True,
            )

    uneven = uneven_records()
    kept(compare("instructions of uneven length", model, uneven[:-16], uneven[-16:], steps, seeds))
    folder = data_folder()
    if folder is None:
        print(f"no real data: {DATA} names no folder with data_full.json", file=sys.stderr)
    else:
        clinc = Clinc.read(folder)
        kept(compare("short utterances", model, classify(clinc.train), classify(clinc.validation[:64]), steps, seeds))
    kept(anatomy(model, uneven))
    if folder is not None:
        for part in proofs(model, folder, quick=chosen.quick):
            kept(part)
    emit(rows, chosen.json)
    return 0


def uneven_records(count: int = 400) -> list[Record]:
    """Prompts of 5 to 120 words, completions of 3 to 80, cut from the repository's own docs."""
    words = (Path(__file__).parent.parent / "docs" / "lora_core.md").read_text().split()
    draw = random.Random(0)

    def text(least: int, most: int) -> str:
        # Log-uniform: many short ones, a few long ones.
        length = round(least * (most / least) ** draw.random())
        start = draw.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    return [Record(Kind.COMPLETION, prompt_messages(text(5, 120)), (text(3, 80),)) for _ in range(count)]


if __name__ == "__main__":
    sys.exit(main())
