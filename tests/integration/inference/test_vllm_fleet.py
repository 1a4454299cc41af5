"""The fleet of vLLM servers by itself, with a loop so slow that requests have to find out what happened."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lora_core.base_model import linear_shapes
from lora_core.grammar import Form
from lora_core.sampling import Request
from services.inference.engine_thread import Finished, Token
from services.inference.errors import BadRequest, Busy
from services.inference.slots.states import LoadFailed
from services.inference.tokenizer import Vocabulary
from services.inference.vllm.backend import VllmBackend
from services.inference.vllm.loader import neutral_card, write_peft
from tests.integration.inference.vllm_placing import PROMPT, holders, load_by_hand, tokens
from tests.integration.inference.vllm_placing import model as model
from tests.integration.inference.vllm_placing import open_fleet as open_fleet
from tests.integration.inference.vllm_placing import placed as placed
from tests.integration.inference.vllm_placing import servers as servers
from tests.integration.inference.vllm_placing import vocabulary as vocabulary


async def test_a_request_for_an_adapter_that_its_server_lost_loads_it_again_and_is_answered_by_it(
    servers: Any, open_fleet: Any, placed: Any
) -> None:
    async with open_fleet() as (fleet, backend):
        adapter = placed(seed=21)
        await fleet.put(adapter)
        before = await tokens(backend, adapter.adapter.adapter_id)
        [home] = holders(servers, adapter)
        home.restart()
        assert holders(servers, adapter) == []
        assert await tokens(backend, adapter.adapter.adapter_id) == before != await tokens(backend, None)
        assert holders(servers, adapter) == [home]


async def test_a_request_that_finds_its_server_down_is_answered_by_another_that_holds_the_adapter(
    servers: Any, open_fleet: Any, placed: Any
) -> None:
    async with open_fleet(copies=2) as (fleet, backend):
        adapter = placed(seed=22)
        await fleet.put(adapter)
        before = await tokens(backend, adapter.adapter.adapter_id)
        first, second = holders(servers, adapter)
        for lost in (first, second):
            lost.stop()
            assert await tokens(backend, adapter.adapter.adapter_id) == before
            lost.start()


async def test_a_name_that_a_server_has_from_another_folder_is_not_taken_for_ours(
    servers: Any, open_fleet: Any, placed: Any, make_adapter: Any
) -> None:
    other = make_adapter(seed=24)
    async with open_fleet() as (fleet, backend):
        adapter = placed(seed=23)
        for server in servers:
            await load_by_hand(server, adapter.name, other.peft)
        await fleet.put(adapter)
        await tokens(backend, adapter.adapter.adapter_id)
        [home] = [one for one in servers if one.adapters[adapter.name] == str(adapter.folder)]
        assert home.requested[-1] == adapter.name


async def test_what_servers_hold_already_is_proved_and_not_loaded_again(
    servers: Any, open_fleet: Any, placed: Any
) -> None:
    adapter = placed(seed=25)
    for server in servers:
        await load_by_hand(server, adapter.name, adapter.folder)
    async with open_fleet() as (fleet, _):
        # A second load under a name in use would be refused.
        assert (await fleet.put(adapter)).max_delta > 0
        assert adapter.folder.exists()


async def test_other_weights_under_the_same_id_have_another_name_everywhere(
    servers: Any, open_fleet: Any, placed: Any
) -> None:
    async with open_fleet() as (fleet, backend):
        old, new = placed(seed=26), placed(seed=27)
        assert old.adapter.adapter_id == new.adapter.adapter_id
        assert old.name != new.name
        await fleet.put(old)
        before = await tokens(backend, old.adapter.adapter_id)
        await fleet.remove(old.adapter.adapter_id)
        assert not old.folder.exists()
        await fleet.put(new)
        assert await tokens(backend, old.adapter.adapter_id) != before
        assert holders(servers, old) == []


async def test_a_server_of_another_base_model_is_never_asked(servers: Any, open_fleet: Any, placed: Any) -> None:
    for server in servers[:2]:
        server.stop()
        server.name = "another"
        server.start()
    async with open_fleet(copies=2) as (fleet, backend):
        adapter = placed(seed=28)
        await fleet.put(adapter)
        await tokens(backend, adapter.adapter.adapter_id)
        assert holders(servers, adapter) == [servers[2]]
        assert servers[0].requested == servers[1].requested == []


async def test_an_adapter_that_cannot_be_placed_is_nowhere_and_forgotten(
    servers: Any, open_fleet: Any, placed: Any
) -> None:
    for server in servers:
        server.max_lora_rank = 2
    async with open_fleet(copies=2) as (fleet, _):
        adapter = placed(seed=29)
        with pytest.raises(LoadFailed, match="rank 4 is greater") as failed:
            await fleet.put(adapter)
        assert (failed.value.code, failed.value.transient) == ("artifact_invalid", False)
        assert holders(servers, adapter) == []
        assert not adapter.folder.exists()


async def test_a_folder_that_servers_cannot_read_is_the_operators_fault_and_tried_again(
    servers: Any, open_fleet: Any, placed: Any
) -> None:
    async with open_fleet() as (fleet, _):
        adapter = placed(seed=30)
        (adapter.folder / "adapter_config.json").unlink()
        with pytest.raises(LoadFailed, match="let it read the adapter folder") as failed:
            await fleet.put(adapter)
        assert (failed.value.code, failed.value.transient) == ("backend_misconfigured", True)


async def test_the_token_that_ends_an_answer_is_not_part_of_it(servers: Any, open_fleet: Any) -> None:
    async with open_fleet() as (_, backend):
        whole = await tokens(backend, None)
    async with open_fleet(stops=frozenset({whole[2]})) as (_, backend):
        request = Request(prompt_ids=PROMPT, max_tokens=4)
        async with backend.generate(request) as deliveries:
            got = [one async for one in deliveries]
    assert [one.id for one in got if isinstance(one, Token)] == whole[:2]
    assert got[-1] == Finished("stop")


async def test_every_sampling_parameter_and_the_candidates_go_to_the_servers_and_come_back(
    servers: Any, open_fleet: Any
) -> None:
    fields = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "seed": 3}
    penalties = {"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.2}
    async with open_fleet() as (_, backend):
        request = Request(PROMPT, None, max_tokens=2, alternatives=3, logit_bias={5: 1.5}, **fields, **penalties)
        async with backend.generate(request) as deliveries:
            got = [one async for one in deliveries if isinstance(one, Token)]
        scored = await backend.scores(PROMPT, None, 2)
        plain = await backend.likelihoods(PROMPT, None)
    [body] = [one for server in servers for one in server.bodies if one.get("stream")]
    assert {name: body[name] for name in (*fields, *penalties)} == fields | penalties
    assert body["logit_bias"] == {"5": 1.5}
    for token in got:
        assert len(token.alternatives) == 3
        assert [one for _, one in token.alternatives] == sorted((one for _, one in token.alternatives), reverse=True)
    assert [one.id for one in scored] == PROMPT[1:]
    assert [one.logprob for one in scored] == pytest.approx(plain)
    assert all(len(one.alternatives) == 2 for one in scored)


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        (Form.of_json({"type": "object"}), {"json": '{"type": "object"}'}),
        (Form("regex", "[0-9]+"), {"regex": "[0-9]+"}),
        (Form.of_choice(["yes", "no"]), {"choice": ["yes", "no"]}),
    ],
)
async def test_the_form_of_an_answer_goes_to_the_servers(
    servers: Any, open_fleet: Any, vocabulary: Vocabulary, form: Form, sent: dict[str, object]
) -> None:
    async with open_fleet() as (_, backend):
        request = Request(PROMPT, None, max_tokens=2, grammar=vocabulary.grammars.of(form))
        async with backend.generate(request) as deliveries:
            assert [one async for one in deliveries]
    assert [one["structured_outputs"] for server in servers for one in server.bodies if one.get("stream")] == [sent]


async def test_more_requests_than_may_wait_are_told_to_come_back(servers: Any, open_fleet: Any) -> None:
    async with open_fleet() as (fleet, _):
        backend = VllmBackend(fleet, stops=frozenset(), rows=1, queue_limit=0)
        request = Request(prompt_ids=PROMPT, max_tokens=100)
        async with backend.generate(request):
            assert backend.load == (1, 0)
            with pytest.raises(Busy, match="waiting"):
                await tokens(backend, None)
        assert backend.load == (0, 0)


async def test_a_request_that_vllm_refuses_is_the_callers_error(servers: Any, open_fleet: Any) -> None:
    async with open_fleet() as (_, backend):
        with pytest.raises(BadRequest, match="maximum context length"):
            await tokens(backend, None, count=1000)


@pytest.mark.parametrize(("on_cpu", "neutral"), [(True, True), (False, True), (False, False)])
async def test_base_model_and_adapters_answer_side_by_side_each_with_its_own_weights(
    servers: Any, open_fleet: Any, placed: Any, tiny_model: Path, tmp_path: Path, on_cpu: bool, neutral: bool
) -> None:
    zeros = tmp_path / "neutral@0123456789ab"
    if neutral:
        write_peft(neutral_card(linear_shapes(tiny_model)), zeros)
    for server in servers:
        server.on_cpu = on_cpu
    async with open_fleet(copies=3, neutral=zeros if neutral else None) as (fleet, backend):
        models = [None, "shop-lora-v1.0.0"]
        base = await tokens(backend, None)
        await fleet.put(placed(seed=31))
        alone = [await tokens(backend, model) for model in models]
        assert alone[0] == base != alone[1]
        for server in servers:
            server.delay = 0.02
        together = await asyncio.gather(*(tokens(backend, model) for model in models * 8))
        assert together == alone * 8
        servers[0].restart()
        servers[1].stop()
        servers[2].stop()
        # It has neither the one nor the other now, and gets both back.
        assert [await tokens(backend, model) for model in models] == alone
