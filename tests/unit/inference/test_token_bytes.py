"""The bytes of an answer's tokens are its text, whichever decoder the tokenizer has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from inference.surface import byte_tokenizer
from services.inference.engine_thread import Token
from services.inference.pieces import PieceStream
from services.inference.token_bytes import TokenBytes
from services.inference.tokenizer import Vocabulary

pytestmark = pytest.mark.unit


def sentence_pieces() -> Any:
    """As Llama 2 and Mistral have them: words with `▁` before them, bytes as `<0xE2>`, a first space left out."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁tide", "t", "i", "d", "e", "h", "ü"]
    raw = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(pieces)}, merges=[], byte_fallback=True))
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def word_pieces() -> Any:
    """A decoder of neither kind."""
    raw = Tokenizer(models.WordPiece(vocab={"[UNK]": 0, "tide": 1, "##s": 2}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")


def joined(tokenizer: Any, ids: list[int]) -> bytes:
    read = TokenBytes(tokenizer)
    return b"".join(read.of(one, first=not at) or b"" for at, one in enumerate(ids))


def test_the_bytes_of_sentence_pieces_are_their_text_without_the_first_space() -> None:
    tokenizer = sentence_pieces()
    ids = [tokenizer.convert_tokens_to_ids(one) for one in ("▁the", "▁tide", "ü", "<0xE2>", "<0x82>", "<0xAC>", "▁")]
    assert joined(tokenizer, ids) == "the tideü€ ".encode()
    assert tokenizer.decode(ids) == "the tideü€ "
    read = TokenBytes(tokenizer)
    assert [read.shown(one) for one in ids[1:4]] == [" tide", "ü", "bytes:\\xe2"]


def test_a_tokenizer_of_another_kind_gives_its_tokens_as_it_decodes_them() -> None:
    assert TokenBytes(word_pieces()).of(1) == b"tide"


def test_special_tokens_have_no_bytes_and_their_names() -> None:
    tokenizer = byte_tokenizer()
    read = TokenBytes(tokenizer)
    special = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert read.of(special) is None
    assert read.shown(special) == "<|im_end|>"


@example(text="0\x8b0", stops=["\x8b", "0\x8b0"])  # the shorter one is whole first
@given(text=st.text(max_size=40), stops=st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_the_tokens_of_all_pieces_are_those_of_the_text_that_came(text: str, stops: list[str]) -> None:
    tokenizer = BYTES
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stream = PieceStream(VOCABULARY, stops)
    pieces = []
    for one in ids:
        pieces.append(stream.feed(Token(one, -1.0)))
        if stream.stopped:
            break
    else:
        pieces.append(stream.finish())
    came = next((text[:end] for end in range(len(text) + 1) if any(one in text[:end] for one in stops)), text)
    wanted = came[: min((came.find(one) for one in stops if one in came), default=len(came))]
    assert "".join(piece.text for piece in pieces) == wanted
    assert joined(tokenizer, [token.id for piece in pieces for token in piece.tokens]) == wanted.encode()


BYTES = byte_tokenizer()
VOCABULARY = Vocabulary(BYTES)
