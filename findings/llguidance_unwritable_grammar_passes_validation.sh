#!/usr/bin/env bash
# llguidance 1.9.1, tokenizers 0.23.3. `LLMatcher.validate_grammar` takes the tokenizer, so one expects it to refuse a
# grammar that no token of that tokenizer can begin. It does not: the grammar is valid, the matcher starts without an
# error, and only the first mask finds out. That mask is not empty: it allows the end token alone, although the matcher
# does not accept, and the matcher is in an error state from then on. An engine that reads masks and no states ends such
# an answer as a complete, empty one. To find it beforehand: compute one mask, then look at `is_error`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "llguidance==1.9.1" "tokenizers==0.23.3"
"$folder/venv/bin/python" - <<'PYTHON'
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, decoders, models

letters = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
letters.decoder = decoders.ByteLevel()
letters.add_special_tokens(["</s>"])
tokens = LLTokenizer(letters.to_str(), n_vocab=3, eos_token=2)
grammar = LLMatcher.grammar_from_json_schema({"type": "object"})  # begins with a brace, and there is no token with one

validated = LLMatcher.validate_grammar(grammar, tokens)
matcher = LLMatcher(tokens, grammar, log_level=0)
print("validated:", repr(validated), "error at the start:", matcher.is_error())
assert validated == "" and not matcher.is_error()

mask = matcher.compute_bitmask()
allowed = [token for token in range(3) if mask[token // 8] >> token % 8 & 1]
print("allowed:", allowed, "accepts:", matcher.is_accepting(), "error:", matcher.is_error())
assert allowed == [2], allowed
assert not matcher.is_accepting()
assert matcher.is_error()
PYTHON
