"""Chat templates of widely used open models, written anew from the prompt formats that their makers document.

`prompt` and `learned` are that documentation's text for one talk: what the model is given before the last answer, and
what it then writes. They are written out, not rendered, so that template and encoding are both held against them.
"""

from __future__ import annotations

from tests.unit.trainer.chat_family import CHATML, CHATML_TALK, END, OPEN, REFUSE_SYSTEM, TURN, Family, chatml
from tests.unit.trainer.reasoning_chat_templates import REASONING

FAMILIES: dict[str, Family] = {
    "Llama 2": Family(
        template="{% set system = '' %}{% if messages[0].role == 'system' %}"
        "{% set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}{% set messages = messages[1:] %}{% endif %}"
        + TURN
        + "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}"
        + "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}"
        + END,
        special=("<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        prompt="<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nOne? [/INST] Yes. </s><s>[INST] Two? [/INST]",
        learned=" No. </s>",
    ),
    "Llama 3": Family(
        template="{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content.strip() %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
        "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' }}"
        "{{ strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' }}{{ '\\n\\n' + system + '<|eot_id|>' }}"
        + TURN
        + "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content.strip() + '<|eot_id|>' }}"
        + END
        + OPEN
        + "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        special=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        prompt="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nOne?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Two?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        learned="No.<|eot_id|>",
    ),
    "Mistral 7B (v0.3)": Family(
        # The system message stands before the last question, so that earlier prompts are not the beginning of later ones.
        template="{{ bos_token }}{% set system = '' %}{% if messages[0].role == 'system' %}"
        "{% set system = messages[0].content + '\\n\\n' %}{% set messages = messages[1:] %}{% endif %}"
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        + TURN
        + "{% if m.role == 'user' %}{{ '[INST] ' + (system if loop.index0 == ns.last else '') + m.content + '[/INST]' }}"
        + "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}"
        + END,
        special=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        prompt="<s>[INST] One?[/INST] Yes.</s>[INST] Be brief.\n\nTwo?[/INST]",
        learned=" No.</s>",
    ),
    "Mistral Small 3": Family(
        template="{{ bos_token }}"
        + TURN
        + "{% if m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
        + "{% elif m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
        + END,
        special=("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        bos="<s>",
        eos="</s>",
        prompt="<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]One?[/INST]Yes.</s>[INST]Two?[/INST]",
        learned="No.</s>",
    ),
    "Qwen 2.5": Family(
        template=chatml(
            "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}{% endif %}"
        ),
        special=CHATML,
        eos="<|im_end|>",
        prompt=CHATML_TALK,
        learned="No.<|im_end|>",
    ),
    "Qwen 2.5 base": Family(
        # The same template, and a tokenizer whose own end closes documents, not turns.
        template=chatml(),
        special=CHATML,
        eos="<|endoftext|>",
        prompt=CHATML_TALK,
        learned="No.<|im_end|>",
    ),
    "Qwen 3": Family(
        template="{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        + TURN
        + "{% set text = m.content.split('</think>')[-1].lstrip('\\n') if m.role == 'assistant' else m.content %}"
        + "{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' and loop.index0 > ns.last %}"
        + "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') if '</think>' in m.content else '' %}"
        + "{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}{{ text + '<|im_end|>\\n' }}"
        + END
        + OPEN
        + "{{ '<|im_start|>assistant\\n' }}{% endif %}",
        special=(*CHATML, "<think>", "</think>"),
        eos="<|im_end|>",
        prompt=CHATML_TALK,
        learned="<think>\n\n</think>\n\nNo.<|im_end|>",
    ),
    "Gemma 2": Family(
        template="{{ bos_token }}"
        + REFUSE_SYSTEM
        + TURN
        + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + '<end_of_turn>\\n' }}"
        + END
        + OPEN
        + "{{ '<start_of_turn>model\\n' }}{% endif %}",
        special=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        system=False,
        prompt="<bos><start_of_turn>user\nOne?<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
        "<start_of_turn>user\nTwo?<end_of_turn>\n<start_of_turn>model\n",
        learned="No.<end_of_turn>",
    ),
    "Gemma 3": Family(
        template="{{ bos_token }}{% set system = '' %}{% if messages[0].role == 'system' %}"
        "{% set system = messages[0].content + '\\n\\n' %}{% set messages = messages[1:] %}{% endif %}"
        + TURN
        + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (system if loop.first else '') }}"
        + "{{ m.content | trim + '<end_of_turn>\\n' }}"
        + END
        + OPEN
        + "{{ '<start_of_turn>model\\n' }}{% endif %}",
        special=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        prompt="<bos><start_of_turn>user\nBe brief.\n\nOne?<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
        "<start_of_turn>user\nTwo?<end_of_turn>\n<start_of_turn>model\n",
        learned="No.<end_of_turn>",
    ),
    "Phi 3": Family(
        template=TURN
        + "{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}"
        + END
        + OPEN
        + "{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
        special=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
        eos="<|endoftext|>",
        prompt="<|system|>\nBe brief.<|end|>\n<|user|>\nOne?<|end|>\n<|assistant|>\nYes.<|end|>\n<|user|>\nTwo?<|end|>\n"
        "<|assistant|>\n",
        learned="No.<|end|>",
    ),
    "Phi 4": Family(
        template=TURN
        + "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}"
        + END
        + OPEN
        + "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        special=("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|endoftext|>"),
        eos="<|im_end|>",
        prompt="<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>One?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Yes.<|im_end|><|im_start|>user<|im_sep|>Two?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>",
        learned="No.<|im_end|>",
    ),
    "DeepSeek V3": Family(
        template="{{ bos_token }}"
        + TURN
        + "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
        + "{% else %}{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}"
        + END
        + OPEN
        + "{{ '<｜Assistant｜>' }}{% endif %}",
        special=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        prompt="<｜begin▁of▁sentence｜>Be brief.<｜User｜>One?<｜Assistant｜>Yes.<｜end▁of▁sentence｜><｜User｜>Two?<｜Assistant｜>",
        learned="No.<｜end▁of▁sentence｜>",
    ),
    **REASONING,
    "GLM 4": Family(
        # Nothing closes a turn but the next one.
        template="{{ '[gMASK]<sop>' }}"
        + TURN
        + "{{ '<|' + m.role + '|>\\n' + m.content }}"
        + END
        + OPEN
        + "{{ '<|assistant|>\\n' }}{% endif %}",
        special=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        eos="<|endoftext|>",
        prompt="[gMASK]<sop><|system|>\nBe brief.<|user|>\nOne?<|assistant|>\nYes.<|user|>\nTwo?<|assistant|>\n",
        learned="No.<|endoftext|>",
    ),
    "Granite 3": Family(
        template=TURN
        + "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\\n' }}"
        + END
        + OPEN
        + "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        special=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        eos="<|end_of_text|>",
        prompt="<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>One?"
        "<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>Yes.<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Two?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        learned="No.<|end_of_text|>",
    ),
    "OLMo 2": Family(
        template="{{ bos_token }}"
        + TURN
        + "{% if m.role == 'assistant' %}{{ '<|assistant|>\\n' + m.content + eos_token + ('' if loop.last else '\\n') }}"
        + "{% else %}{{ '<|' + m.role + '|>\\n' + m.content + '\\n' }}{% endif %}"
        + END
        + OPEN
        + "{{ '<|assistant|>\\n' }}{% endif %}",
        special=("<|endoftext|>",),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        prompt="<|endoftext|><|system|>\nBe brief.\n<|user|>\nOne?\n<|assistant|>\nYes.<|endoftext|>\n<|user|>\nTwo?\n<|assistant|>\n",
        learned="No.<|endoftext|>",
    ),
    "SmolLM 2": Family(
        template=chatml(
            "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are SmolLM.<|im_end|>\\n' }}{% endif %}"
        ),
        special=CHATML,
        bos="<|im_start|>",
        eos="<|im_end|>",
        prompt=CHATML_TALK,
        learned="No.<|im_end|>",
    ),
    "Command R": Family(
        template="{{ bos_token }}"
        + TURN
        + "{% set who = {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] %}"
        + "{{ '<|START_OF_TURN_TOKEN|>' + who + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
        + END
        + OPEN
        + "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
        special=(
            "<BOS_TOKEN>",
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
        ),
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        prompt="<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>One?<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Yes.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Two?<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        learned="No.<|END_OF_TURN_TOKEN|>",
    ),
    "Falcon 3": Family(
        template=TURN
        + "{{ '<|' + m.role + '|>\\n' + m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' if not loop.last or m.role != 'assistant' }}"
        + END
        + OPEN
        + "{{ '<|assistant|>\\n' }}{% endif %}",
        special=("<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        eos="<|endoftext|>",
        prompt="<|system|>\nBe brief.\n<|user|>\nOne?\n<|assistant|>\nYes.<|endoftext|>\n<|user|>\nTwo?\n<|assistant|>\n",
        learned="No.<|endoftext|>",
    ),
    "Zephyr": Family(
        template=TURN
        + "{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}"
        + END
        + OPEN
        + "{{ '<|assistant|>\\n' }}{% endif %}",
        special=("<s>", "</s>"),
        eos="</s>",
        prompt="<|system|>\nBe brief.</s>\n<|user|>\nOne?</s>\n<|assistant|>\nYes.</s>\n<|user|>\nTwo?</s>\n<|assistant|>\n",
        learned="No.</s>",
    ),
    "InternLM 2": Family(
        template=chatml("{{ bos_token }}"),
        special=("<s>", "</s>", "<|im_start|>", "<|im_end|>"),
        bos="<s>",
        eos="</s>",
        prompt="<s>" + CHATML_TALK,
        learned="No.<|im_end|>",
    ),
    "EXAONE 3": Family(
        template=TURN
        + "{{ '[|' + m.role + '|]' + m.content }}{{ '\\n' if m.role == 'user' else '[|endofturn|]\\n' }}"
        + END
        + OPEN
        + "{{ '[|assistant|]' }}{% endif %}",
        special=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
        eos="[|endofturn|]",
        prompt="[|system|]Be brief.[|endofturn|]\n[|user|]One?\n[|assistant|]Yes.[|endofturn|]\n[|user|]Two?\n[|assistant|]",
        learned="No.[|endofturn|]",
    ),
    "Kimi K2": Family(
        template=TURN
        + "{{ '<|im_' + m.role + '|>' + m.role + '<|im_middle|>' + m.content + '<|im_end|>' }}"
        + END
        + OPEN
        + "{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}",
        special=("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
        eos="<|im_end|>",
        prompt="<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user<|im_middle|>One?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>Yes.<|im_end|><|im_user|>user<|im_middle|>Two?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>",
        learned="No.<|im_end|>",
    ),
}
