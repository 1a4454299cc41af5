"""Rows that join, leave, share a prompt or are cancelled never change what other rows answer."""

import threading

import pytest

from lora_core import AdapterNotFound, ArrowEngine, Request
from tests.unit.lora_core.test_engine import PROMPT, PROMPTS, run
from tests.unit.lora_core.test_engine import engine as engine


@pytest.mark.requirement("LI-5.6")
def test_a_row_without_adapter_is_not_touched_by_its_neighbours(engine, make_card) -> None:
    engine.load(make_card())
    alone = engine.start([Request(PROMPT), Request(PROMPT)])
    beside = engine.start([Request(PROMPT), Request(PROMPT, "adapter")])
    for _ in range(5):
        plain, mixed = alone.step(), beside.step()
        assert plain[0] == mixed[0]  # token and log-probability, exactly


def test_rows_end_by_stop_token_length_or_cancellation_and_leave_the_others_alone(engine) -> None:
    long = run(engine, [Request(PROMPT, max_tokens=12, stop_ids=())])[0]
    assert len(long) == 12
    stop = next(token for token in long[2:] if token not in long[:2])
    batch = engine.start(
        [
            Request(PROMPT, max_tokens=12, stop_ids=(stop,)),
            Request(PROMPT, max_tokens=3, stop_ids=()),
            Request(PROMPT, max_tokens=12, stop_ids=()),
            Request(PROMPT, max_tokens=12, stop_ids=()),
            Request(PROMPT, max_tokens=12, stop_ids=(), extra_stop_ids=(stop,)),
        ]
    )
    tokens = [[] for _ in range(5)]
    steps = 0
    while batch.alive:
        for row, token, _ in batch.step():
            tokens[row].append(token)
        steps += 1
        if steps == 2:
            batch.cancel(2)
    assert tokens == [long[: long.index(stop)], long[:3], long[:2], long, long[: long.index(stop)]]
    assert [batch.finish_reason(row) for row in range(4)] == ["stop", "length", "cancelled", "length"]
    assert batch.step() == []


def test_threads_with_batches_and_loads_of_their_own_do_not_disturb_each_other(engine, make_card) -> None:
    for seed in range(3):
        engine.load(make_card(f"a{seed}", 4, seed))
    requests = {f"a{seed}": [Request(p, f"a{seed}", max_tokens=10, stop_ids=()) for p in PROMPTS] for seed in range(3)}
    expected = {name: run(engine, batch) for name, batch in requests.items()}
    seen = {name: [] for name in requests}

    def serve(name: str) -> None:
        for _ in range(3):
            seen[name].append(run(engine, requests[name]))

    threads = [threading.Thread(target=serve, args=(name,)) for name in requests]
    for thread in threads:
        thread.start()
    for turn in range(20):
        engine.load(make_card("passing", 4, 90 + turn))
        engine.unload("passing")
    for thread in threads:
        thread.join()
    assert seen == {name: [answer] * 3 for name, answer in expected.items()}


@pytest.mark.parametrize("prefill", [1, 4, 7, 256])
def test_rows_that_join_and_leave_a_running_batch_answer_as_if_they_were_alone(
    tiny_llama, tiny_tokenizer, make_card, prefill
) -> None:
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=6, max_rank=8, prefill_tokens=prefill)
    for seed, name in enumerate("abc"):
        engine.load(make_card(name, 4 + seed, seed))
    waves = [  # step at which it joins, prompt, adapter, length
        (0, PROMPTS[2], "a", 14),
        (0, PROMPTS[1], None, 3),
        (2, PROMPTS[0], "b", 4),
        (5, PROMPTS[2] * 3, "c", 9),
        (5, PROMPTS[3], "a", 2),
        (6, PROMPTS[1], "b", 30),
        (20, PROMPTS[0], None, 5),
    ]
    requests = [Request(prompt, adapter, max_tokens=length, stop_ids=()) for _, prompt, adapter, length in waves]
    expected = [run(engine, [request])[0] for request in requests]
    joins = {step: [n for n, wave in enumerate(waves) if wave[0] == step] for step, *_ in waves}
    batch = engine.start([requests[n] for n in joins.pop(0)])
    answers: list[list[int]] = [[], []]
    for step in range(90):
        if step in joins:
            rows = batch.add([requests[n] for n in joins[step]])
            assert list(rows) == joins[step]
            answers += [[] for _ in rows]
        for row, token, _ in batch.step():
            answers[row].append(token)
        if (
            step == 25 and prefill == 256
        ):  # only the long row of a short prompt is left: nothing of the longer ones is kept
            assert batch._padded[0].positions < 35
    assert answers == expected
    assert not batch.alive
    assert engine.free_slots == 3


def test_prompts_of_very_different_lengths_are_not_padded_to_the_longest(engine, make_card, monkeypatch) -> None:
    monkeypatch.setattr("lora_core.batch._MUCH_PADDING", 20)
    engine.load(make_card("a"))
    prompts = [[3 + n] * length for n, length in enumerate((1, 2, 2, 3, 40, 37, 5))]
    requests = [Request(p, "a" if n % 2 else None, max_tokens=5, stop_ids=()) for n, p in enumerate(prompts)]
    expected = [run(engine, [request])[0] for request in requests]
    read = read_by(engine)
    assert run(engine, requests) == expected
    # The model's own pass reads what its inner one does; four lengths in bits make four passes.
    assert sorted(read[:8:2]) == [1, 5, 3 * 3, 2 * 40]


def test_a_long_prompt_is_read_in_pieces_while_others_get_their_tokens(tiny_llama, tiny_tokenizer) -> None:
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=1, prefill_tokens=5)
    batch = engine.start([Request(PROMPT, max_tokens=30, stop_ids=())])
    batch.step()
    (long,) = batch.add([Request(list(range(2, 19)), max_tokens=2, stop_ids=())])  # 17 tokens: four steps
    drew = [{row for row, _, _ in batch.step()} for _ in range(5)]
    assert drew == [{0}, {0}, {0}, {0, long}, {0, long}]


def test_a_row_that_is_cancelled_while_its_prompt_is_read_leaves_the_others_as_they_are(
    tiny_llama, tiny_tokenizer
) -> None:
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=1, prefill_tokens=4)
    prompts = [PROMPT, list(range(2, 20)), list(range(30, 39))]
    expected = [run(engine, [Request(prompt, max_tokens=6, stop_ids=())])[0] for prompt in prompts]
    batch = engine.start([Request(prompts[0], max_tokens=6, stop_ids=())])
    answers: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for row, token, _ in batch.step():
        answers[row].append(token)
    batch.add([Request(prompt, max_tokens=6, stop_ids=()) for prompt in prompts[1:]])
    for step in range(40):
        if step == 2:
            batch.cancel(1)
        for row, token, _ in batch.step() if batch.alive else ():
            answers[row].append(token)
    assert answers == {0: expected[0], 1: [], 2: expected[2]}


def read_by(engine) -> list[int]:
    """Tokens that each forward pass reads, over its rows, as they come."""
    read: list[int] = []
    for model in (engine.model, engine.model.base_model):
        model.register_forward_pre_hook(
            lambda _model, _args, kwargs: read.append(kwargs["input_ids"].numel()) if "input_ids" in kwargs else None,
            with_kwargs=True,
        )
    return read


def test_a_prompt_of_several_rows_is_read_once_and_each_row_answers_for_itself(engine, make_card) -> None:
    for seed, name in enumerate("ab"):
        engine.load(make_card(name, 4, seed))
    long = PROMPTS[2]
    alike = [Request(long, "a", max_tokens=6, temperature=1.5, seed=seed, stop_ids=()) for seed in range(4)]
    others = [Request(long, "b", max_tokens=6, stop_ids=()), Request(PROMPT, max_tokens=9, stop_ids=())]
    requests = [*alike[:2], *others, *alike[2:]]
    expected = [run(engine, [request])[0] for request in requests]
    read = read_by(engine)
    assert run(engine, requests) == expected
    assert len({tuple(answer) for answer in expected}) > 3, "the rows draw different answers"
    # The model's own pass reads what its inner one does.
    assert read[:2] == [3 * len(long)] * 2, "one row for each prompt and adapter, padded"
    assert read[2:4] == [6, 6], "then a token of each row"


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1, 3], [4]])
def test_rows_that_share_a_prompt_go_on_when_some_of_them_are_cancelled_while_it_is_read(
    tiny_llama, tiny_tokenizer, cancelled
) -> None:
    engine = ArrowEngine(tiny_llama, tiny_tokenizer, slots=1, prefill_tokens=4)
    requests = [Request(list(range(2, 20)), max_tokens=6, stop_ids=()) for _ in range(4)]
    requests.append(Request(PROMPT, max_tokens=6, stop_ids=()))
    expected = [run(engine, [request])[0] for request in requests]
    batch = engine.start([Request([7], max_tokens=40, stop_ids=())])  # others wait, so that prompts are read in pieces
    batch.step()
    rows = batch.add(requests)
    answers = {row: [] for row in (0, *rows)}
    for step in range(40):
        if step == 1:
            for row in cancelled:
                batch.cancel(rows[row])
        for row, token, _ in batch.step() if batch.alive else ():
            answers[row].append(token)
    assert [answers[row] for row in rows] == [[] if at in cancelled else own for at, own in enumerate(expected)]


def test_a_request_for_an_unknown_adapter_joins_nothing_and_disturbs_nothing(engine, make_card) -> None:
    engine.load(make_card("a"))
    batch = engine.start([Request(PROMPT, max_tokens=4, stop_ids=())])
    with pytest.raises(AdapterNotFound, match=r"'b' is not loaded \(loaded: a\)"):
        batch.add([Request(PROMPT, "a"), Request(PROMPT, "b")])
    assert len([token for _, token, _ in batch]) == 4
    engine.unload("a")
    assert engine.free_slots == 6


@pytest.mark.parametrize(
    "bad", [{"prompt_ids": []}, {"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 2}]
)
def test_an_impossible_request_is_refused_with_what_would_be_right(bad) -> None:
    with pytest.raises(ValueError, match="expected"):
        Request(**({"prompt_ids": PROMPT} | bad))
