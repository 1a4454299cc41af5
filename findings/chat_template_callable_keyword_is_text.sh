#!/usr/bin/env bash
# transformers 5.23.0, jinja2 3.1.6. `apply_chat_template` documents its further keywords as "passed to the template
# renderer". A function given that way (to fix the date that `strftime_now` writes, as with earlier releases) reaches the
# template as the text "<function>", and calling it there fails: "'str' object is not callable". Seen: since the values
# are rebuilt from plain JSON types, whatever is none of these becomes a placeholder that names its type.
# Who needs another clock has to render the template in an environment of their own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.23.0" "jinja2==3.1.6" "tokenizers==0.23.3"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
talk = [{"role": "user", "content": "a"}]


def fixed(form: str) -> str:
    return "26 Jul 2024"


tokenizer.chat_template = "{{ strftime_now }}"
seen = tokenizer.apply_chat_template(talk, tokenize=False, strftime_now=fixed)
print("the template sees:", seen)
assert seen == "<function>", seen

tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}"
try:
    tokenizer.apply_chat_template(talk, tokenize=False, strftime_now=fixed)
except TypeError as error:
    print("calling it:", error)
    assert str(error) == "'str' object is not callable"
else:
    raise SystemExit("changed: the function was called")
PYTHON
