"""Lines of a batch's output and error files: kept in parts as they come, joined at the end.

A part is stored before its lines count as done, so a killed process loses at most the lines that it was answering.
Two processes may both have answered a line, when the first was taken for dead: the first part that is read counts.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.inference.batches.records import Counts, Usage

WHY = {
    "expired": "This request was not computed before the batch's completion window ended.",
    "failed": "This request was not computed before the batch was given up.",
    "lost": "This request was computed, and its result could not be read again.",
    "cancelled": "This request was not computed before the batch was cancelled.",
}


def answered(custom_id: str, status: int, body: Mapping[str, object]) -> dict[str, object]:
    """The line of a request that was answered, or refused with this status."""
    response = {"status_code": status, "request_id": f"req_{secrets.token_hex(12)}", "body": dict(body)}
    return _line(custom_id, response, None)


def not_run(custom_id: str, why: str) -> dict[str, object]:
    """The line of a request that was not computed; why: one of `WHY`."""
    return _line(custom_id, None, {"code": f"batch_{why}", "message": WHY[why]})


def part_of(lines: Iterable[Mapping[str, object]]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in lines)


@dataclass(slots=True)
class Joined:
    """The two files while they are written, and what they hold."""

    output: Path
    errors: Path
    done: set[str] = field(default_factory=set)
    completed: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)

    def add(self, part: bytes) -> None:
        """Append the lines of a part that no part before it had."""
        with self.output.open("ab") as output, self.errors.open("ab") as errors:
            for content in part.splitlines(keepends=True):
                line = json.loads(content)
                if line["custom_id"] in self.done:
                    continue
                self.done.add(line["custom_id"])
                if is_completed(line):
                    self.completed += 1
                    self._count(line["response"]["body"].get("usage") or {})
                    output.write(content)
                else:
                    self.failed += 1
                    errors.write(content)

    def counts(self, total: int) -> Counts:
        """Of so many lines."""
        return Counts(total=total, completed=self.completed, failed=self.failed)

    def _count(self, usage: Mapping[str, int]) -> None:
        read = usage.get("prompt_tokens", usage.get("input_tokens", 0))
        written = usage.get("completion_tokens", usage.get("output_tokens", 0))
        self.usage = Usage(
            input_tokens=self.usage.input_tokens + read, output_tokens=self.usage.output_tokens + written
        )


def is_completed(line: Mapping[str, object]) -> bool:
    """Whether a line belongs to the output file."""
    response = line["response"]
    return isinstance(response, dict) and response["status_code"] == 200


def _line(custom_id: str, response: object, error: object) -> dict[str, object]:
    return {
        "id": f"batch_req_{secrets.token_hex(12)}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
