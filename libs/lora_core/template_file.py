"""The chat template in a base model's folder, as transformers' `save_pretrained` writes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A template and what it may use beside the conversation: the tokenizer's special tokens."""

    text: str
    variables: Mapping[str, str]


def read_template(folder: Path) -> StoredTemplate | None:
    """The default template of a folder; None if it has none.

    Raises ValueError for files that are not JSON, and where there are several templates and no default.
    """
    configuration = _json_of(folder / "tokenizer_config.json")
    template: object = _json_of(folder / "chat_template.json").get("chat_template")
    template = template or configuration.get("chat_template")
    if isinstance(template, list):
        template = {one["name"]: one["template"] for one in template}
    if isinstance(template, dict):
        if "default" not in template:
            raise ValueError(f"{folder} has several chat templates and none is called 'default'")
        template = template["default"]
    if (file := folder / "chat_template.jinja").is_file():
        template = file.read_text(encoding="utf-8")
    if not template:
        return None
    tokens = {**_json_of(folder / "special_tokens_map.json"), **configuration}
    texts = {name: one["content"] if isinstance(one, dict) else one for name, one in tokens.items()}
    variables = {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}
    return StoredTemplate(str(template), variables)


def _json_of(file: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}
