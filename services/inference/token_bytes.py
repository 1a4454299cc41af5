"""`TokenBytes`: which bytes of an answer's text each token stands for."""

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_SPACE = "▁"  # SentencePiece's mark


class TokenBytes:
    """By the tokenizer's own decoder: the bytes of an answer's tokens, joined, are the answer in UTF-8."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer

    def of(self, token_id: int, *, first: bool = False) -> bytes | None:
        """A token's bytes, which may be a part of a character; None of special tokens, which no answer shows.

        first: the token begins a text, where some decoders leave a space out.
        """
        added = self._added.get(token_id)
        if added is not None:
            return None if added.special else str(added.content).encode()
        token = str(self._tokenizer.convert_ids_to_tokens(token_id) or "")
        if "ByteLevel" in self._decoders:
            numbers = [_BYTE_OF.get(one) for one in token]
            if None not in numbers:
                return bytes(number for number in numbers if number is not None)
        elif "ByteFallback" in self._decoders and (found := _BYTE.fullmatch(token)):
            return bytes.fromhex(found[1])
        elif _SPACE in token:
            text = token.replace(_SPACE, " ")
            return (text[1:] if first and not self._alone(token_id).startswith(" ") else text).encode()
        return self._alone(token_id).encode()

    def shown(self, token_id: int, *, first: bool = False) -> str:
        """A token as text; `bytes:\\xe2\\x82`, as OpenAI writes it, where it is a part of a character."""
        found = self.of(token_id, first=first)
        if found is None:
            return self._alone(token_id)
        try:
            return found.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{one:02x}" for one in found)

    def _alone(self, token_id: int) -> str:
        text = self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        return text if isinstance(text, str) else "".join(text)

    @cached_property
    def _added(self) -> dict[int, Any]:
        return dict(self._tokenizer.added_tokens_decoder)

    @cached_property
    def _decoders(self) -> frozenset[str]:
        """Kinds of the tokenizers library's decoders that this tokenizer has; none where it is not of that library."""
        decoder = getattr(getattr(self._tokenizer, "backend_tokenizer", None), "decoder", None)
        if decoder is None:
            return frozenset()
        state = json.loads(decoder.__getstate__())
        return frozenset(str(one.get("type")) for one in [state, *state.get("decoders", ())])


def _byte_of() -> dict[str, int]:
    """GPT-2's alphabet of byte-level tokens: bytes that print stand for themselves, the others for U+0100 and up."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_of()
