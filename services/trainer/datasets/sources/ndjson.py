"""Lines of a byte stream, each whole."""

import json
from collections.abc import AsyncIterator

MAX_LINE_BYTES = 4 * 1024 * 1024


class LineTooLong(Exception):
    """A line is larger than any document we take."""


async def whole_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines that are not blank, without their ends; raises `LineTooLong` beyond 4 MiB."""
    pending = bytearray()
    async for chunk in chunks:
        searched = len(pending)
        pending += chunk
        start = 0
        while (end := pending.find(b"\n", max(start, searched))) >= 0:
            line = bytes(pending[start:end])
            start = searched = end + 1
            _check(len(line))
            if line.strip():
                yield line
        del pending[:start]
        _check(len(pending))
    if pending.strip():
        yield bytes(pending)


def _check(length: int) -> None:
    if length > MAX_LINE_BYTES:
        raise LineTooLong(f"a line has more than {MAX_LINE_BYTES} bytes")


def last_id(line: bytes) -> str:
    """The `id` of a document; empty where it has none or is no object."""
    try:
        document = json.loads(line)
    except ValueError:
        return ""
    found = document.get("id") if isinstance(document, dict) else None
    return str(found) if found is not None else ""
