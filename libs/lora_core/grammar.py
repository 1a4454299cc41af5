"""`Grammars`: the form that an answer must have, and which tokens may come next under it.

llguidance computes the masks, in about 0.1 ms a token. JSON is written with one space after `:` and `,` and none
elsewhere, as Python writes it: a model that may add white space can do so for ever.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions
    from transformers import PreTrainedTokenizerBase

FormKind = Literal["json_schema", "regex", "choice", "lark"]

JSON_STYLE: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is written, as the member `x-guidance` of a schema inside of a grammar too."""
_KEPT = 64  # compiled grammars: a schema mostly comes with many requests
MAX_SOURCE = 262_144  # characters of a form


class UnsuitableForm(ValueError):
    """A form that cannot be held, or that has more than is read; the message says what of it."""


class FormBroken(ArithmeticError):
    """A row that cannot go on under its form: it has become too complex."""


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must be as a whole.

    source: a JSON schema as JSON; a regular expression (of Rust, without lookaround and references); a JSON list of the
    texts that it may be; a grammar in llguidance's kind of Lark.
    """

    kind: FormKind
    source: str

    @classmethod
    def of_json(cls, schema: object) -> Form:
        """The answer is JSON of this schema."""
        return cls("json_schema", json.dumps(schema))

    @classmethod
    def of_choice(cls, texts: Sequence[str]) -> Form:
        """The answer is one of these texts."""
        return cls("choice", json.dumps(list(texts)))


ANY_OBJECT = Form.of_json({"type": "object"})
"""Any JSON object."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A form as a tokenizer can follow it."""

    form: Form
    _matcher: LLMatcher = field(repr=False, compare=False)

    def begin(self) -> Constraint:
        """For one answer, at its beginning."""
        return Constraint(self._matcher.deep_copy())


class Constraint:
    """One answer under a grammar. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """New logits, [vocabulary]: -inf for each token that may not come next. Raises FormBroken."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.zeros(logits.shape[0], dtype=bool)
        found = np.unpackbits(bits, bitorder="little")[: len(allowed)]
        allowed[: len(found)] = found
        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """The token that was drawn. Raises FormBroken."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise FormBroken(_first_line(self._matcher.get_error()))


class Grammars:
    """Forms for one tokenizer. May be used from several threads.

    size: tokens that the model has logits of. ends: its tokens that end an answer, allowed where the form is complete.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int, ends: Collection[int]) -> None:
        self._tokenizer, self._size, self._ends = tokenizer, size, sorted(ends)
        self._trie: LLTokenizer | None = None
        self._kept: OrderedDict[Form, Grammar] = OrderedDict()
        self._lock = Lock()

    def of(self, form: Form) -> Grammar:
        """The form's grammar; takes up to a second the first time. Raises UnsuitableForm."""
        with self._lock:
            if (known := self._kept.get(form)) is not None:
                self._kept.move_to_end(form)
                return known
            trie = self._tokens()
        made = Grammar(form, _compiled(trie, form))
        with self._lock:
            self._kept[form] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def literal(self, text: str) -> str:
        """A text in a grammar of kind `lark`: what this tokenizer has special tokens for as these, the rest as it is.

        Raises UnsuitableForm as `of` does.
        """
        with self._lock:
            trie = self._tokens()
        added = {str(one.content): int(number) for number, one in self._tokenizer.added_tokens_decoder.items()}
        special = {content: number for content, number in added.items() if trie.is_special_token(number)}
        parts = re.split("|".join(map(re.escape, special)), text) if special else [text]
        between = re.findall("|".join(map(re.escape, special)), text) if special else []
        found = [json.dumps(parts[0])] if parts[0] else []
        for token, part in zip(between, parts[1:], strict=True):
            found += [f"<[{special[token]}]>", *([json.dumps(part)] if part else [])]
        return " ".join(found)

    def _tokens(self) -> LLTokenizer:
        """The lock is held."""
        if self._trie is None:
            self._trie = self._read_tokenizer()
        return self._trie

    def _read_tokenizer(self) -> LLTokenizer:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UnsuitableForm(
                "this base model's tokenizer is not of the tokenizers library, whose tokens alone can be followed"
            )
        description = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
        try:
            return LLTokenizer(
                json.dumps(description), n_vocab=max(self._size, len(self._tokenizer)), eos_token=self._ends or None
            )
        except ValueError as error:
            raise UnsuitableForm(
                f"this base model's tokenizer cannot be followed: {_first_line(str(error))}"
            ) from error


def _compiled(trie: LLTokenizer, form: Form) -> LLMatcher:
    if len(form.source) > MAX_SOURCE:
        raise UnsuitableForm(f"it has {len(form.source)} characters, at most {MAX_SOURCE} are read")
    match form.kind:
        case "json_schema":
            try:
                grammar = LLMatcher.grammar_from_json_schema(form.source, overrides=JSON_STYLE)
            except ValueError as error:
                raise UnsuitableForm(_first_line(str(error))) from error
        case "regex":
            grammar = LLMatcher.grammar_from_regex(form.source)
        case "lark":
            grammar = LLMatcher.grammar_from_lark(form.source)
        case "choice":
            # A text in JSON is a text in a Lark grammar.
            grammar = LLMatcher.grammar_from_lark(
                "start: " + " | ".join(json.dumps(one) for one in json.loads(form.source))
            )
    faulty, messages = LLMatcher.validate_grammar_with_warnings(grammar, trie)
    if faulty:
        raise UnsuitableForm(_reason(messages[0]))
    matcher = LLMatcher(trie, grammar, log_level=0)
    if matcher.is_error():
        raise UnsuitableForm(_reason(matcher.get_error()))
    matcher.compute_bitmask()
    if matcher.is_error():
        raise UnsuitableForm("no token of this base model can begin such an answer")
    return matcher


def _reason(message: str) -> str:
    """The sentence of a fault: the last line that names an error, else the first."""
    named = [line.removeprefix("error: ") for line in message.splitlines() if line.startswith("error: ")]
    return named[-1] if named else _first_line(message)


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0][:500]
