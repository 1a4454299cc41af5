"""A record: the one shape that every kind of training data has, in memory, as JSON and as an Arrow row."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from fleet_events.v1 import RecordKind

if TYPE_CHECKING:
    import pyarrow as pa

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation"]


Kind = RecordKind
"""What a record's completions are.

completion: the one wanted answer. conversation: the last answer of a talk whose earlier answers are wanted too.
preference: the chosen one, then the rejected one. ranking: two or more, best first. rated: one answer and its
rating, 0 to 5.
"""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    trained: bool = True
    """False for an answer that is context alone, with no loss on it. Only an assistant's turn can be trained."""

    def values(self) -> dict[str, Any]:
        """The turn as JSON values; `trained` is there where it is false."""
        unmarked = {"role": self.role, "content": self.content}
        return unmarked if self.trained else {**unmarked, "trained": False}


@dataclass(frozen=True)
class Record:
    """A prompt (one user message, or the talk so far) and its completions, in the order that the kind gives them."""

    kind: Kind
    prompt: tuple[Message, ...]
    completions: tuple[str, ...]
    rating: float | None = None
    origin: str = ""
    """Where it comes from: a source's name, a person, a system."""
    source_id: str = ""
    """What its source calls it."""
    synthetic: bool = False
    """Made by a generator: never used to validate or to judge."""
    split: Split = "train"
    subjects: tuple[str, ...] = ()
    """Keyed digests of the people whom it is about, in order."""
    record_id: str = field(init=False)
    """SHA-256 of kind, prompt and completions: equal content is one record."""

    def __post_init__(self) -> None:
        content = {
            "completions": list(self.completions),
            "kind": self.kind.value,
            "prompt": [
                [message.role, message.content] if message.trained else [message.role, message.content, False]
                for message in self.prompt
            ],
        }
        object.__setattr__(self, "record_id", hashlib.sha256(canonical(content).encode()).hexdigest())

    @property
    def prompt_text(self) -> str:
        """The last user message: what near-duplicates, languages and lengths are judged by."""
        return next((message.content for message in reversed(self.prompt) if message.role == "user"), "")

    @property
    def prompt_key(self) -> str:
        """Digest of the whole prompt. Records of one prompt are never on both sides of a split."""
        return key_of_prompt((message.role, message.content) for message in self.prompt)

    def values(self) -> dict[str, Any]:
        """The record as JSON values, with its id."""
        return {
            "id": self.record_id,
            "kind": self.kind.value,
            "prompt": [message.values() for message in self.prompt],
            "completions": list(self.completions),
            "rating": self.rating,
            "origin": self.origin,
            "source_id": self.source_id,
            "synthetic": self.synthetic,
            "split": self.split,
            "subjects": list(self.subjects),
        }

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> "Record":
        """The record of what `values` gave; its id is computed again."""
        return cls(
            kind=Kind(values["kind"]),
            prompt=tuple(
                Message(cast("Role", one["role"]), one["content"], one.get("trained") is not False)
                for one in values["prompt"]
            ),
            completions=tuple(values["completions"]),
            rating=values.get("rating"),
            origin=values.get("origin") or "",
            source_id=values.get("source_id") or "",
            synthetic=bool(values.get("synthetic")),
            split=cast("Split", values.get("split") or "train"),
            subjects=tuple(values.get("subjects") or ()),
        )


def prompt_messages(prompt: str, *, system: str = "") -> tuple[Message, ...]:
    """A prompt of one user message, behind a system message where there is one."""
    user = Message("user", prompt)
    return (Message("system", system), user) if system else (user,)


def key_of_prompt(turns: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of a whole prompt, given as (role, content) of each turn."""
    return hashlib.sha256(canonical([list(turn) for turn in turns]).encode()).hexdigest()


def schema() -> "pa.Schema":
    """Arrow schema of a data set's file: one row a record, columns named as `Record.values` names them."""
    import pyarrow as pa

    message = pa.struct(
        [
            pa.field("role", pa.string(), False),
            pa.field("content", pa.string(), False),
            pa.field("trained", pa.bool_()),  # null is true: files of earlier versions lack it
        ]
    )
    return pa.schema(
        [
            pa.field("id", pa.string(), False),
            pa.field("kind", pa.string(), False),
            pa.field("prompt", pa.list_(pa.field("item", message, False)), False),
            pa.field("completions", pa.list_(pa.field("item", pa.string(), False)), False),
            pa.field("rating", pa.float64()),
            pa.field("origin", pa.string(), False),
            pa.field("source_id", pa.string(), False),
            pa.field("synthetic", pa.bool_(), False),
            pa.field("split", pa.string(), False),
            pa.field("subjects", pa.list_(pa.field("item", pa.string(), False))),  # files of earlier versions lack it
        ]
    )


def read(path: Path, *, batch_size: int = 1024) -> Iterator[Record]:
    """Records of a data set's Parquet file, in its order, a batch in memory at a time."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=batch_size):
        for row in batch.to_pylist():
            yield Record.of_values(row)


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
