"""Chat templates: the texts of transformers, and bounds on what a template may take."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lora_core.chat_template import ChatTemplate, RenderLimits
from lora_core.template_errors import TemplateRefuses, TemplateTooCostly, UnknownVariables

pytestmark = pytest.mark.unit

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What does the tide do at noon? é \U0001f30a\n"},
    {"role": "assistant", "content": "<think>\nIt is noon.\n</think>\n\nIt turns."},
    {"role": "user", "content": "And {{ 1 + 1 }} {% for x in [1] %} at night?"},
]
PIECES = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}"

# Each uses what templates of known models use: loop controls, namespaces, macros, slices, tojson, dates, generation.
TEMPLATES = {
    "plain": PIECES + "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "blocks on lines of their own": "\n".join(
        [
            "{% for m in messages %}",
            "    {% if m.role == 'user' %}",
            "{{ m.content }}",
            "    {%- endif %}",
            "{% endfor %}",
        ]
    ),
    "namespace": (
        "{% set ns = namespace(last=-1, seen=false) %}{% for m in messages[::-1] %}{% if m.role == 'user' and not ns.seen %}"
        "{% set ns.last = messages|length - 1 - loop.index0 %}{% set ns.seen = true %}{% endif %}{% endfor %}{{ ns.last }}"
    ),
    "thoughts are cut": (
        "{% for m in messages %}{% set text = m.content %}{% if '</think>' in text %}"
        "{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ text }}|{% endfor %}"
    ),
    "macro": "{% macro turn(m) %}[{{ m.role | upper }}: {{ m.content }}]{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}",
    "tools and documents": "{{ tools is none }}{{ documents is none }}{{ nothing is defined }}{{ messages is iterable }}",
    "dictionary": "{{ dict(a=1).items() | list }}{{ dict.fromkeys(['a'], 2) }}",
    "formats": "{{ '%s-%s' % (1, 2) }}{{ '{}'.format(messages[0].role) }}{{ 'a' ~ 1 }}{{ [1, 2] | join(', ') }}{{ 'x' | center(9) }}",
    "undefined": "{{ nothing }}{{ messages[0].nothing }}{{ messages[0].get('nothing') }}",
    "unsafe": "{{ ''.__class__ }}{{ messages.__len__ }}",
}

SLOW = (
    "{% if messages[0].content == 'slow' %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"
)


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model, local_files_only=True)


@pytest.fixture
def renderers() -> Iterator[list[ChatTemplate]]:
    made: list[ChatTemplate] = []
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("template", [None, *TEMPLATES.values()], ids=["the model's own", *TEMPLATES])
def test_a_text_is_the_one_that_transformers_renders(tokenizer: Any, template: str | None) -> None:
    with closing(ChatTemplate(template or tokenizer.chat_template, tokenizer.special_tokens_map)) as ours:
        for opened in (True, False):
            theirs = tokenizer.apply_chat_template(
                TALK, tokenize=False, add_generation_prompt=opened, chat_template=template
            )
            assert ours.render(TALK, add_generation_prompt=opened) == theirs


def test_template_syntax_in_a_message_is_text(tokenizer: Any) -> None:
    content = "{{ 7 * 7 }}{% raw %}{{ strftime_now('%Y') }}{# gone? #}{% endraw %}{{ raise_exception('x') }}"
    with closing(ChatTemplate("{{ messages[0].content }}")) as ours:
        assert ours.render([{"role": "user", "content": content}]) == content


def test_the_date_is_the_given_one_or_the_clocks(renderers: list[ChatTemplate]) -> None:
    ours = ChatTemplate("{{ strftime_now('%d %b %Y %H:%M') }}")
    renderers.append(ours)
    assert ours.render(TALK, now=datetime(2026, 3, 1, 14, 5)) == "01 Mar 2026 14:05"
    before = datetime.now().replace(second=0, microsecond=0)
    written = datetime.strptime(ours.render(TALK), "%d %b %Y %H:%M")
    assert before <= written <= datetime.now()


@pytest.mark.parametrize(
    ("template", "limit"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "time"),
        ("{% for i in range(99999) %}{% if range(99999) | list | sum < 0 %}{% endif %}{% endfor %}", "time"),
        ("{% set n = messages | length %}{{ (n + 9) ** (10 ** (n + 7)) }}", "time"),
        ("{{ 9 ** (10 ** 9) }}", "time"),  # computed while it is compiled
        ("{% if 'x' * (messages | length * 10 ** 8) %}{% endif %}", "memory"),
        ("{{ messages[0].content | center(10 ** 9) }}", "memory"),
        ("{{ '%1000000000d' | format(3) }}", "memory"),
        ("{{ '{:>1000000000}'.format(1) }}", "memory"),
        ("{% set ns = namespace(t='x') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}", "memory"),
        ("{{ ([messages[0].content] * 10 ** 9) | join }}", "memory"),
        ("{% for i in range(99999) %}{{ 'many words ' }}{% endfor %}", "text"),
        ("{{ 'x' * 10 ** 6 }}", "text"),
    ],
)
def test_a_template_that_takes_too_much_ends_its_own_rendering_alone(template: str, limit: str) -> None:
    limits = RenderLimits(seconds=0.3 if limit == "time" else 5)
    with closing(ChatTemplate(template, limits=limits)) as ours:
        begun, used = time.monotonic(), time.thread_time()
        with pytest.raises(TemplateTooCostly) as caught:
            ours.render(TALK)
    assert caught.value.limit == limit
    assert time.thread_time() - used < 0.2  # the caller's own processor time
    assert time.monotonic() - begun < 30


def test_time_is_bounded_where_the_callers_process_ignores_its_signal() -> None:
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    try:
        with closing(ChatTemplate(SLOW, limits=RenderLimits(seconds=0.3))) as ours:
            ours.render([{"role": "user", "content": "quick"}])
            process = ours._process
            with pytest.raises(TemplateTooCostly):
                ours.render([{"role": "user", "content": "slow"}])
    finally:
        signal.signal(signal.SIGPROF, before)
    assert process is not None
    assert process.returncode == -signal.SIGPROF, "it was left to run until the clock's limit"


def test_after_a_costly_conversation_others_are_rendered() -> None:
    with closing(ChatTemplate(SLOW, limits=RenderLimits(seconds=0.3))) as ours:
        for _ in range(2):
            with pytest.raises(TemplateTooCostly, match=r"0\.3 s of processor time"):
                ours.render([{"role": "user", "content": "slow"}])
            assert ours.render([{"role": "user", "content": "quick"}]) == "quick"


def test_a_refusal_has_the_templates_own_words_and_leaves_its_process(renderers: list[ChatTemplate]) -> None:
    ours = ChatTemplate(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}ok"
    )
    renderers.append(ours)
    for _ in range(2):
        with pytest.raises(TemplateRefuses, match=r"^no system role here$"):
            ours.render(TALK)
        assert ours.render(TALK[1:]) == "ok"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% if %}", "Expected an expression"),
        ("{{ nothing.attribute }}", "'nothing' is undefined"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe|undefined"),
        ("{% set ns = namespace(_x=1) %}", "underscore"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused(template: str, why: str) -> None:
    with closing(ChatTemplate(template)) as ours, pytest.raises(TemplateRefuses, match=why):
        ours.render(TALK)


def test_a_refusal_that_repeats_the_conversation_is_cut() -> None:
    with (
        closing(ChatTemplate("{{ raise_exception(messages | tojson) }}")) as ours,
        pytest.raises(TemplateRefuses) as caught,
    ):
        ours.render([{"role": "user", "content": "x" * 100_000}])
    assert len(str(caught.value)) <= 500


def test_a_long_conversation_is_no_fault(tokenizer: Any) -> None:
    long = [{"role": "user", "content": "é\U0001f30a" * 500_000}]
    with closing(ChatTemplate.of(tokenizer)) as ours:  # type: ignore[type-var]
        assert ours.render(long) == tokenizer.apply_chat_template(long, tokenize=False)


def test_credentials_are_not_where_templates_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_S3_SECRET_KEY", "planted")
    with closing(ChatTemplate("ok")) as ours:
        ours.render(TALK)
        process = ours._process
        assert process is not None
        folder = Path(f"/proc/{process.pid}")
        if folder.exists():
            assert b"planted" not in (folder / "environ").read_bytes()
            limits = (folder / "limits").read_text()
            assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")] == ["3"]


def test_a_process_that_was_killed_is_replaced() -> None:
    with closing(ChatTemplate("ok")) as ours:
        ours.render(TALK)
        process = ours._process
        assert process is not None
        process.kill()
        process.wait()
        assert ours.render(TALK) == "ok"


def test_threads_get_the_texts_of_their_own_conversations() -> None:
    with closing(ChatTemplate("{{ messages[0].content }}")) as ours, ThreadPoolExecutor(8) as pool:
        contents = [str(number) for number in range(200)]
        got = pool.map(lambda content: ours.render([{"role": "user", "content": content}]), contents)
        assert list(got) == contents


def test_a_template_that_is_no_longer_held_leaves_no_process() -> None:
    ours = ChatTemplate("ok")
    ours.render(TALK)
    process = ours._process
    assert process is not None
    del ours
    assert process.poll() is not None
    assert not os.path.exists(f"/proc/{process.pid}")


def test_rendering_in_a_process_of_its_own_costs_less_than_a_millisecond(tokenizer: Any) -> None:
    with closing(ChatTemplate.of(tokenizer)) as ours:  # type: ignore[type-var]
        ours.render(TALK)
        taken = []
        for _ in range(200):
            begun = time.perf_counter()
            ours.render(TALK)
            taken.append(time.perf_counter() - begun)
    # The least of many: what others do on this machine is not the matter.
    assert min(taken) < 1e-3


# As the makers of these models publish them.
SEEING = {
    "SmolVLM": (
        "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
        "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
        "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
        "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        "<|im_start|>System: Be brief.<end_of_utterance>\nUser: One?<end_of_utterance>\nAssistant:",
    ),
    "LLaVA 1.5": (
        "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
        "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
        "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        "Be brief. USER: One? ASSISTANT:",
    ),
}


@pytest.mark.parametrize("model", SEEING)
def test_a_template_that_reads_content_as_parts_alone_renders_the_text(model: str) -> None:
    template, expected = SEEING[model]
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}]
    with closing(ChatTemplate(template)) as renderer:
        assert renderer.render(talk, add_generation_prompt=True) == expected


def test_a_template_that_reads_plain_text_and_parts_is_given_plain_text() -> None:
    both = (
        "{% for m in messages %}{% if m.content is string %}text:{{ m.content }}{% else %}parts{% endif %}{% endfor %}"
    )
    with closing(ChatTemplate(both)) as renderer:
        assert renderer.render([{"role": "user", "content": "One?"}]) == "text:One?"


def test_a_folder_has_the_template_of_its_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    read = ChatTemplate.of_folder(tmp_path)
    assert read is not None
    with closing(read), closing(ChatTemplate.of(tokenizer)) as own:  # type: ignore[type-var]
        assert read.render(TALK, add_generation_prompt=True) == own.render(TALK, add_generation_prompt=True)
    assert ChatTemplate.of_folder(tmp_path / "nothing") is None


THINKS = (
    "{% if thinking is not defined %}{% set thinking = false %}{% endif %}{% set own = 1 %}{{ bos_token }}"
    "{{ thinking }}|{{ settings.deep.much if settings is defined }}|{% for m in messages %}{{ m.content }}{% endfor %}"
)


def test_a_template_gets_the_variables_that_it_reads_and_no_others() -> None:
    with closing(ChatTemplate(THINKS, {"bos_token": "<s>"})) as template:
        extra = {"thinking": True, "settings": {"deep": {"much": 3}}}
        assert template.render(TALK[:1], extra=extra) == "<s>True|3|Be brief."
        assert template.render(TALK[:1]) == "<s>False||Be brief."
        for name in ("think", "own", "messages", "bos_token", "strftime_now", "dict", "raise_exception", "m"):
            with pytest.raises(UnknownVariables, match=f"no variable '{name}': it reads settings, thinking"):
                template.render(TALK[:1], extra={"thinking": True, name: 1})
