"""Text out of tokens as they come: whole characters only, ended by stop strings that are never shown."""

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "�"


class Decodes(Protocol):
    """The part of a tokenizer that is needed here."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


class TextStream:
    """Turns token ids into text deltas; their concatenation is the answer.

    A token may be part of a character, and the text of a token may depend on the ones before it. So a window of
    earlier tokens is decoded along, and what could still change is held back.
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = [one for one in stop if one]
        self._ids: list[int] = []
        self._prefix = 0
        self._read = 0
        self._held = ""
        self.stopped = False

    @property
    def settled(self) -> bool:
        """Is all text of the tokens so far given out?"""
        return not self._held and self._read == len(self._ids)

    def feed(self, token_id: int) -> str:
        """The text that is final with this token; may be empty. `stopped`: a stop string came."""
        self._ids.append(token_id)
        return self._release(self._decode_new(final=False), final=False)

    def finish(self) -> str:
        """What was held back."""
        return self._release(self._decode_new(final=True), final=True)

    def _decode_new(self, *, final: bool) -> str:
        window = self._ids[self._prefix :]
        known = self._decode(window[: self._read - self._prefix])
        text = self._decode(window)
        if text.endswith(REPLACEMENT) and not final:
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _release(self, new: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        ends = [index for index in (text.find(one) for one in self._stop) if index >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        keep = 0 if final else self._could_begin_stop(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _could_begin_stop(self, text: str) -> int:
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
