"""`ToolFormat`: how a chat template has its model write calls, found out from the template itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """A call is `begin`, `{"name": "NAME", "ARGUMENTS": {...}}` and `end`; the next one follows behind `between`.

    marker: a special token before the first call, which is no text. begin, end: around each call or, with `listed`,
    around all of them. anywhere: text may come before; else an answer is calls or text, from its first character on.
    several: an answer may have more than one.
    """

    name: str
    arguments: str
    begin: str
    end: str
    marker: str = ""
    between: str = ""
    listed: bool = False
    anywhere: bool = False
    several: bool = True

    @property
    def head(self) -> str:
        """The text from where an answer begins to call up to the name of the function."""
        return f'{self.begin}{{"name": "'

    @property
    def middle(self) -> str:
        """Between the name and the arguments."""
        return f'", "{self.arguments}": '


HERMES = ToolFormat("hermes", "arguments", "<tool_call>\n", "\n</tool_call>", between="\n", anywhere=True)
"""Hermes 2 Pro, Qwen 2.5 and 3 and their kin."""
LLAMA = ToolFormat("llama", "parameters", "", "", several=False)
"""Llama 3.1, 3.2 and 3.3: the answer is one call."""
MISTRAL = ToolFormat("mistral", "arguments", "[", "]", marker="[TOOL_CALLS]", between=", ", listed=True)
"""Mistral up to its tokenizer v7."""


def of_template(template: str) -> ToolFormat | None:
    """The format that a chat template shows its model; None where it shows none that is read here."""
    if "<tool_call>" in template:
        # What calls in XML inside of the same tags (Qwen3-Coder, GLM) is another format.
        return None if "<function=" in template or "<arg_key>" in template else HERMES
    if MISTRAL.marker in template:
        return None if "[ARGS]" in template else MISTRAL
    if "parameters" in template and ("ipython" in template or "python_tag" in template):
        return LLAMA
    return None
