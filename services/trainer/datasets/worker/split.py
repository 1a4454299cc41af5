"""Which side of the split a record is on: decided by its prompt, so that no prompt is ever on both."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.trainer.datasets.records import Split, key_of_prompt

if TYPE_CHECKING:
    import pyarrow as pa


def side_of(prompt_key: str, validation_part: float, seed: int) -> Split:
    """The side of a prompt: the first 64 bits of SHA-256 over seed and prompt key, as a number from 0 to 1."""
    drawn = int(hashlib.sha256(f"{seed}:{prompt_key}".encode()).hexdigest()[:16], 16) / 2**64
    return "validation" if drawn < validation_part else "train"


@dataclass
class Splitter:
    """Assigns sides to Arrow batches, and knows afterwards which prompts validate (16 bytes a prompt)."""

    validation_part: float
    seed: int
    leaking: int = 0
    """Synthetic records that were left out, since their prompt validates."""
    _validating: set[bytes] = field(default_factory=set)

    def assign(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """The batch with its `split` column set. What is synthetic only ever trains."""
        import pyarrow as pa

        sides: list[Split] = ["train"] * len(batch)
        if self.validation_part:
            synthetic = batch["synthetic"].to_pylist()
            for row, key in enumerate(_keys(batch)):
                if not synthetic[row] and side_of(key, self.validation_part, self.seed) == "validation":
                    sides[row] = "validation"
                    self._validating.add(_short(key))
        return batch.set_column(batch.schema.get_field_index("split"), batch.schema.field("split"), pa.array(sides))

    def without_leaks(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """The batch without synthetic records whose prompt validates; to be called once all batches are assigned."""
        import pyarrow as pa

        synthetic = batch["synthetic"].to_pylist()
        if not self._validating or not any(synthetic):
            return batch
        keys = _keys(batch)
        kept = [not made or _short(key) not in self._validating for made, key in zip(synthetic, keys, strict=True)]
        self.leaking += kept.count(False)
        return batch.filter(pa.array(kept))


def _keys(batch: "pa.RecordBatch") -> list[str]:
    return [key_of_prompt((turn["role"], turn["content"]) for turn in turns) for turns in batch["prompt"].to_pylist()]


def _short(key: str) -> bytes:
    return bytes.fromhex(key)[:16]
