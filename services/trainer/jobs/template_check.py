"""What the base model's chat template can render, checked once at the start, and the faults and warnings of a job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_core.chat_template import ChatTemplate
from lora_core.template_errors import ChatTemplateError
from services.trainer.datasets.records import Kind
from services.trainer.faults import Fault

_SYSTEM, _QUESTION, _ANSWER = "Lorafleet system", "Lorafleet question", "Lorafleet answer"
_PROMPT = [{"role": "user", "content": _QUESTION}]
_INSTRUCTED = [{"role": "system", "content": _SYSTEM}, *_PROMPT]
_CONTINUED = [*_PROMPT, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": "Lorafleet again"}]


@dataclass(frozen=True)
class TemplateCheck:
    """What a chat template does with a question, a system message and a conversation of several turns.

    `unfit` and `no_turns`: why questions and conversations have no text; empty where they have one. Of a base model
    without a template nothing is known.
    """

    unfit: str = ""
    no_turns: str = ""
    system: Literal["kept", "dropped", "refused"] = "kept"

    @classmethod
    def of(cls, folder: Path) -> "TemplateCheck":
        """Render probes with the template in a base model's folder."""
        try:
            template = ChatTemplate.of_folder(folder)
        except ValueError as error:
            return cls(unfit=str(error))
        if template is None:
            return cls()
        try:
            return cls._of(template)
        finally:
            template.close()

    @classmethod
    def _of(cls, template: ChatTemplate) -> "TemplateCheck":
        if unfit := _why_not(template, _PROMPT, _QUESTION):
            return cls(unfit=unfit)
        system: Literal["kept", "dropped", "refused"] = "kept"
        try:
            system = "kept" if _SYSTEM in template.render(_INSTRUCTED, add_generation_prompt=True) else "dropped"
        except ChatTemplateError:
            system = "refused"
        return cls(no_turns=_why_not(template, _CONTINUED, _ANSWER), system=system)

    def faults(self, base_model: str, dataset_id: str, kind: str) -> Iterator[Fault]:
        """Why a job could not be trained with this template. `kind` is the data set's, empty where it is made later."""
        if self.unfit:
            expected = f"a base model whose chat template renders a question; this one's does not: {self.unfit}"
            yield Fault("base_model", base_model, expected)
        elif self.no_turns and kind == Kind.CONVERSATION:
            expected = f"a data set of single questions; the base model's chat template refuses more: {self.no_turns}"
            yield Fault("dataset_id", dataset_id, expected)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the requester of a job should know, although the job can be trained."""
        match self.system:
            case "dropped":
                return (
                    "the base model's chat template drops system messages: records are trained, and requests served, "
                    "without theirs; put the instructions into the prompts",
                )
            case "refused":
                return ("the base model's chat template refuses system messages: a record with one fails the training",)
            case _:
                return ()


def _why_not(template: ChatTemplate, messages: Sequence[Mapping[str, str]], text: str) -> str:
    """Why this part of the messages has no place in the rendered text; empty where it has one."""
    try:
        rendered = template.render(messages, add_generation_prompt=True)
    except ChatTemplateError as error:
        return str(error)
    return "" if text in rendered else "it leaves the text of a message out"
