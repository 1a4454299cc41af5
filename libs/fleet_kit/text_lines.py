"""Lines of UTF-8 text that comes in pieces, ended by a line feed alone.

Line ends of Unicode (U+2028, U+0085 …) are letters within JSON texts: `str.splitlines`, and with it httpx's
`iter_lines`, cuts a line of JSON or a server-sent event in two where an answer has one.
"""

from collections.abc import AsyncIterator, Iterator

__all__ = ["Lines", "async_lines_of", "lines_of"]


class Lines:
    """Takes pieces, gives the lines that they complete, without their ends (a carriage return before it included)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[str]:
        """The lines that end in this piece. Raises UnicodeDecodeError."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        return [line.removesuffix(b"\r").decode() for line in whole]

    def finish(self) -> list[str]:
        """What followed the last line feed; nothing where the text ended with one."""
        rest, self._rest = self._rest, b""
        return [rest.removesuffix(b"\r").decode()] if rest else []


def lines_of(pieces: Iterator[bytes]) -> Iterator[str]:
    """Every line, as it comes."""
    lines = Lines()
    for piece in pieces:
        yield from lines.feed(piece)
    yield from lines.finish()


async def async_lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Every line, as it comes."""
    lines = Lines()
    async for piece in pieces:
        for line in lines.feed(piece):
            yield line
    for line in lines.finish():
        yield line
