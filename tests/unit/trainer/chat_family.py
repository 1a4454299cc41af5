"""What is known of a model family's chat format, and the pieces that many templates share."""

from __future__ import annotations

from dataclasses import dataclass

TURN = "{% for m in messages %}"
END = "{% endfor %}"
OPEN = "{% if add_generation_prompt %}"
REFUSE_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@dataclass(frozen=True)
class Family:
    """template: Jinja. special: tokens beside the letters. bos, eos: what the tokenizer calls so.

    The talk is system "Be brief." (where `system`), user "One?", assistant "Yes.", user "Two?", answer "No.".
    """

    template: str
    special: tuple[str, ...]
    eos: str
    prompt: str
    learned: str
    bos: str | None = None
    system: bool = True


def chatml(prefix: str = "") -> str:
    turn = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    return prefix + TURN + turn + END + OPEN + "{{ '<|im_start|>assistant\\n' }}{% endif %}"


CHATML_TALK = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
    "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"
)
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
