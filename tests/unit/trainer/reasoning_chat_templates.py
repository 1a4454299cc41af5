"""Chat templates of models that reason before they answer; see `chat_templates`."""

from __future__ import annotations

from tests.unit.trainer.chat_family import END, OPEN, TURN, Family

REASONING: dict[str, Family] = {
    "DeepSeek R1": Family(
        # The prompt opens the reasoning; an answer in the talk has none.
        template="{{ bos_token }}"
        + TURN
        + "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
        + "{% else %}{{ '<｜Assistant｜>' + m.content.split('</think>')[-1].lstrip('\\n') + '<｜end▁of▁sentence｜>' }}{% endif %}"
        + END
        + OPEN
        + "{{ '<｜Assistant｜><think>\\n' }}{% endif %}",
        special=(
            "<｜begin▁of▁sentence｜>",
            "<｜end▁of▁sentence｜>",
            "<｜User｜>",
            "<｜Assistant｜>",
            "<think>",
            "</think>",
        ),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        prompt="<｜begin▁of▁sentence｜>Be brief.<｜User｜>One?<｜Assistant｜>Yes.<｜end▁of▁sentence｜><｜User｜>Two?<｜Assistant｜><think>\n",
        learned="\n</think>\n\nNo.<｜end▁of▁sentence｜>",
    ),
    "gpt-oss": Family(
        # An answer in the talk ends with <|end|>, the one that is generated with <|return|>.
        template="{{ '<|start|>system<|message|>Reasoning: medium<|end|>' }}{% if messages[0].role == 'system' %}"
        "{{ '<|start|>developer<|message|># Instructions\\n\\n' + messages[0].content + '<|end|>' }}{% set messages = messages[1:] %}{% endif %}"
        + TURN
        + "{% if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% else %}"
        + "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}{% endif %}"
        + END
        + OPEN
        + "{{ '<|start|>assistant' }}{% endif %}",
        special=("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        eos="<|return|>",
        prompt="<|start|>system<|message|>Reasoning: medium<|end|><|start|>developer<|message|># Instructions\n\nBe brief."
        "<|end|><|start|>user<|message|>One?<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|end|>"
        "<|start|>user<|message|>Two?<|end|><|start|>assistant",
        learned="<|channel|>final<|message|>No.<|return|>",
    ),
}
