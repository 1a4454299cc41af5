"""Pieces of an answer: its text as it comes, each with the tokens that the text is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from services.inference.detokenizer import TextStream
from services.inference.engine_thread import Token
from services.inference.tokenizer import Vocabulary


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer, which may be empty while a character or a stop string may be coming, and its tokens."""

    text: str
    tokens: tuple[Token, ...]


class PieceStream:
    """Turns tokens into pieces. Tokens come with the text that they end; those of a stop string never do."""

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self._bytes = vocabulary.bytes
        self._text = TextStream(vocabulary, stop)
        self._tokens: list[Token] = []
        """Whose text is not given out, or not all of it."""
        self._given = 0
        """Bytes of their text that are."""

    @property
    def stopped(self) -> bool:
        """A stop string came."""
        return self._text.stopped

    def feed(self, token: Token) -> Piece:
        """What is final with this token."""
        self._tokens.append(token)
        return self._piece(self._text.feed(token.id))

    def finish(self) -> Piece:
        """What was held back."""
        return self._piece(self._text.finish())

    def _piece(self, text: str) -> Piece:
        self._given += len(text.encode())
        if self._text.stopped:
            return Piece(text, tuple(self._before_stop()))
        if not self._text.settled:
            return Piece(text, ())
        tokens, self._tokens, self._given = tuple(self._tokens), [], 0
        return Piece(text, tokens)

    def _before_stop(self) -> list[Token]:
        """The tokens that some of the text given out is of."""
        begins, at = [], 0
        for token in self._tokens:
            begins.append(at)
            at += len(self._bytes.of(token.id) or b"")
        return [
            token for token, _ in takewhile(lambda one: one[1] < self._given, zip(self._tokens, begins, strict=True))
        ]
