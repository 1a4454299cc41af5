"""Writes docs/architectures.md from what the comparison with PEFT finds: `python -m tests.architectures_table`.

It takes some minutes. The tests hold each row of the page against what they find.
"""

import logging
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from tests.peft_comparison import EXACT, KINDS, Compared, compared
from tests.tiny_configs import CAUSAL, IMAGE_TEXT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
ALL = (*CAUSAL, *IMAGE_TEXT)

_TEXT = """# Architectures

What adapters of PEFT give in the engine's slots, for every class of causal language model in transformers and some
models of images and text: {versions}.

Of each, a model of some 100,000 random weights is saved, opened, and given adapters of rank 4 that PEFT made and saved:
of all linear layers inside the network, the same with DoRA, and of the input embedding. Each adapter goes through our
file format and is computed in a batch of four rows (this adapter, none, another adapter, this adapter) and in one of
its own. *Exact* means that no logit differs from PEFT's by more than 1e-4 of the largest. A dash: the adapter was not
made, and the reason stands in the last column, with the linear layers that the adapters leave out: PEFT turns the names
of experts into stacked parameters, which slots refuse, and refuses two layers of Mamba itself.

{exact} of {all} classes are exact in all that PEFT makes for them. A tiny model gives no measure of the memory or the
speed of a large one.

Made by `python -m tests.architectures_table`; `tests/unit/lora_core/test_every_architecture.py` holds every row against
what it finds, a few of them at each change and all under `make test-heavy`.

| class | `model_type` | linear layers | DoRA | input embedding | left out, or why not |
|---|---|---|---|---|---|
{rows}
"""


def row(model_type: str, found: Compared) -> str:
    """One architecture's line."""
    outcomes = [getattr(found, kind) for kind in KINDS]
    cells = [one if one == EXACT else "—" for one in outcomes]
    reasons = list(dict.fromkeys(one for one in outcomes if one != EXACT))
    left_out = [f"without {', '.join(f'`{name}`' for name in found.without)}"] if found.without else []
    remarks = "; ".join([*left_out, *reasons]).replace("|", "\\|")
    return f"| {found.architecture} | `{model_type}` | {' | '.join(cells)} | {remarks} |"


def stated() -> dict[str, str]:
    """model_type → the line that the page has for it."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "`" in line]
    return {line.split("`")[1]: line for line in lines if not line.startswith("| class")}


def versions() -> str:
    """What the page was made with."""
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in ("transformers", "peft", "torch"))


def main() -> None:
    rows, exact = [], 0
    for model_type in ALL:
        with tempfile.TemporaryDirectory() as folder:
            found = compared(model_type, Path(folder))
        rows.append(row(model_type, found))
        exact += all(getattr(found, kind) == EXACT for kind in KINDS)
        print(rows[-1], flush=True)
    PAGE.write_text(_TEXT.format(versions=versions(), exact=exact, all=len(ALL), rows="\n".join(sorted(rows))))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    main()
