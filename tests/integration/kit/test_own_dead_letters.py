"""A service shows its dead letters over HTTP and handles them again, by rights that reach no other service's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from nats.js import JetStreamContext
from nats.js.errors import APIError

from fleet_events import v1
from fleet_events.topology import DEAD_STREAM, row_of
from fleet_kit.cloudevents import Envelope, seal
from fleet_kit.dead_letter_writer import MAX_HEADER
from fleet_kit.dead_letters import count, list_dead
from fleet_kit.errors import NotYet, Refused
from fleet_kit.handlers import Handlers
from fleet_kit.leased_task import LeasedTask
from fleet_kit.service import create_app
from fleet_kit.transaction import Transaction
from tests.conftest import Mint
from tests.integration.kit.conftest import eventually

pytestmark = pytest.mark.integration
FEEDBACK = row_of(v1.FeedbackRecorded).subject


class Broken:
    """Handlers of a registry that refuse what they are given until they are mended."""

    def __init__(self) -> None:
        self.mended = False
        self.handled: list[str] = []
        self.envelopes: list[Envelope] = []
        self.handlers: Handlers[Any] = Handlers("registry")
        self.handlers.on(v1.FeedbackRecorded)(self.handle)
        self.handlers.on(v1.EvaluationFailed)(self.handle_failure)

    async def handle(self, event: v1.FeedbackRecorded, tx: Transaction, _service: Any) -> None:
        self.envelopes.append(tx.envelope)
        self._take(event.generation_id)

    async def handle_failure(self, event: v1.EvaluationFailed, _tx: Transaction, _service: Any) -> None:
        self._take(event.evaluation_id)

    def _take(self, name: str) -> None:
        if not self.mended:
            raise Refused(f"{name} is unknown here")
        if name == "too early":
            raise NotYet("its adapter is not known yet", after=3)
        self.handled.append(name)


Client = Callable[..., httpx.AsyncClient]


@asynccontextmanager
async def served(handlers: Handlers[Any], settings_of: Any, mint: Mint) -> AsyncIterator[Client]:
    """`client("shop")`: a caller with `admin` in these domains, or in every one."""
    app = create_app(handlers.service, settings_of(handlers.service), handlers=handlers, api=APIRouter())
    async with app.router.lifespan_context(app):

        async def listens() -> bool:
            try:
                await app.state.service.access.ready()
                return app.state.service.dead_letters is not None
            except (ConnectionError, RuntimeError):
                return False

        await eventually(listens)

        def client(*domains: str, scopes: tuple[str, ...] = ("admin",)) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://registry",
                headers={"Authorization": f"Bearer {mint(scopes, domains or ('*',), 'ann')}"},
            )

        yield client


async def bury(jetstream: JetStreamContext, client: httpx.AsyncClient, name: str, domain: str) -> dict[str, Any]:
    """An event that is given up, and its letter."""
    event = v1.EvaluationFailed(evaluation_id=name, adapter_id="a", family="f", domain=domain, reason="r")
    sealed = seal(event, service="evaluator", entity=name, trace={}, id=f"event-{name}")
    await jetstream.publish(sealed.subject, sealed.body, headers=dict(sealed.headers))
    [letter] = await listed(client, f"event-{name}")
    return letter


async def _is(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted


async def listed(client: httpx.AsyncClient, event_id: str) -> list[dict[str, Any]]:
    """The letters of an event, once there are any."""
    found: list[dict[str, Any]] = []

    async def any_found() -> bool:
        found[:] = await letters_of(client, event_id)
        return bool(found)

    await eventually(any_found)
    return found


async def letters_of(client: httpx.AsyncClient, event_id: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/dead-letters")
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["letters"] if one["event_id"] == event_id]


async def test_a_replay_handles_a_letter_once_and_a_second_is_refused_with_the_name_of_the_first_person(
    settings_of, mint, jetstream: JetStreamContext
) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        letter = await bury(jetstream, operator, "order", "shop")
        assert letter["reason"] == "refused: order is unknown here"
        assert (letter["type"], letter["domain"]) == ("EvaluationFailed", "shop")
        assert '"evaluationId":"order"' in letter["body"].replace(" ", "")
        where = f"/v1/dead-letters/{letter['id']}"

        again = await operator.post(f"{where}/replay")
        assert again.status_code == 409, "its cause is not gone"
        assert "order is unknown here" in again.json()["detail"]
        assert (await operator.get(where)).json() == letter

        broken.mended = True
        assert (await operator.post(f"{where}/replay")).json() == {"outcome": "done"}
        assert broken.handled == ["order"]
        second = await operator.post(f"{where}/replay")
        assert (second.status_code, second.json()["detail"]) == (409, "ann has replayed this dead letter")
        assert broken.handled == ["order"]
        assert letter["id"] not in [one["id"] for one in (await operator.get("/v1/dead-letters")).json()["letters"]]
        assert "event-order" not in [one.event_id async for one in list_dead(jetstream)], "`lorafleet dlq` agrees"


async def test_a_replayed_letter_leaves_the_stream_and_its_mark_counts_as_no_letter(
    settings_of, mint, jetstream: JetStreamContext
) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        letter = await bury(jetstream, operator, "counted", "shop")

        async def counted() -> int:
            """Letters, once those that earlier tests replayed have left."""
            listed = len([one async for one in list_dead(jetstream)])
            await eventually(lambda: _is(count(jetstream), listed))
            return listed

        before = await counted()
        broken.mended = True
        assert (await operator.post(f"/v1/dead-letters/{letter['id']}/replay")).status_code == 200
        assert await counted() == before - 1
        subjects = f"lorafleet.dlq.registry.{letter['id']}.>"
        left = (await jetstream.stream_info(DEAD_STREAM, subjects_filter=subjects)).state.subjects
        assert list((left or {}).values()) == [1], "the mark is there for the second person"


async def test_the_handler_sees_in_a_replay_where_and_when_the_event_was_stored_first(
    settings_of, mint, jetstream: JetStreamContext
) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        body = v1.FeedbackRecorded(generation_id="g-stored", domain="shop", rating=1).to_json()
        stored = await jetstream.publish(FEEDBACK, body, headers={"ce-id": "event-stored"})
        [letter] = await listed(operator, "event-stored")
        broken.mended = True
        answer = await operator.post(f"/v1/dead-letters/{letter['id']}/replay")
        assert answer.json() == {"outcome": "done"}
        [first, again] = broken.envelopes
        assert (again.sequence, again.time) == (first.sequence, first.time) == (stored.seq, first.time)


async def test_long_work_of_a_letter_that_was_not_kept_whole_is_not_begun(
    settings_of, mint, jetstream: JetStreamContext
) -> None:
    handlers: Handlers[Any] = Handlers("evaluator")

    @handlers.long(v1.EvaluationRequested, lease=lambda event, _: f"test:{event.evaluation_id}")
    async def work(_event: v1.EvaluationRequested, _task: LeasedTask, _service: Any) -> None:
        raise Refused("the judge is not set up")

    async with served(handlers, settings_of, mint) as client, client() as operator:
        event = v1.EvaluationRequested(evaluation_id="cut", adapter_id="a-lora-v1.0.0", domain="shop")
        headers = {"ce-id": "event-cut", "traceparent": "x" * (MAX_HEADER + 1)}
        await jetstream.publish(row_of(v1.EvaluationRequested).subject, event.to_json(), headers=headers)
        [letter] = await listed(operator, "event-cut")
        answer = await operator.post(f"/v1/dead-letters/{letter['id']}/replay")
        assert (answer.status_code, answer.json()["title"]) == (409, "Not kept whole")


async def test_two_replays_at_once_have_one_effect(settings_of, mint, jetstream: JetStreamContext) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        letter = await bury(jetstream, operator, "at-once", "shop")
        broken.mended = True
        where = f"/v1/dead-letters/{letter['id']}/replay"
        await asyncio.gather(*(operator.post(where) for _ in range(4)))
        assert broken.handled == ["at-once"]


async def test_what_cannot_be_handled_yet_stays_and_tells_when(settings_of, mint, jetstream: JetStreamContext) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        letter = await bury(jetstream, operator, "too early", "shop")
        broken.mended = True
        answer = await operator.post(f"/v1/dead-letters/{letter['id']}/replay")
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "3")
        assert (await operator.get(f"/v1/dead-letters/{letter['id']}")).status_code == 200


async def test_letters_of_another_domain_are_not_found_and_a_token_without_the_scope_is_refused(
    settings_of, mint, jetstream: JetStreamContext
) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        letter = await bury(jetstream, operator, "theirs", "shop")
        where = f"/v1/dead-letters/{letter['id']}"
        async with client("bank") as other:
            assert (await other.get("/v1/dead-letters")).json()["letters"] == []
            assert (await other.get(where)).status_code == 404
            assert (await other.post(f"{where}/replay")).status_code == 404
        async with client("shop") as own:
            assert (await own.get(where)).status_code == 200
        async with client(scopes=("adapters:read",)) as reader:
            assert (await reader.get("/v1/dead-letters")).status_code == 403
            assert (await reader.post(f"{where}/replay")).status_code == 403
        assert (await operator.get("/v1/dead-letters/evaluation_failed.1-2")).status_code == 404
        assert (await operator.get("/v1/dead-letters/*.>")).status_code == 422


async def test_what_people_wrote_is_not_shown(settings_of, mint, jetstream: JetStreamContext) -> None:
    broken = Broken()
    async with served(broken.handlers, settings_of, mint) as client, client() as operator:
        body = v1.FeedbackRecorded(generation_id="g", domain="shop", rating=1, comment="my name is Ann").to_json()
        await jetstream.publish(FEEDBACK, body, headers={"ce-id": "event-secret"})
        [letter] = await listed(operator, "event-secret")
        assert letter["body"] is None
        assert "my name" not in str(letter)


async def test_long_work_is_begun_and_continues_after_the_answer(
    settings_of, mint, jetstream: JetStreamContext
) -> None:
    state = {"mended": False, "done": 0}
    handlers: Handlers[Any] = Handlers("evaluator")

    @handlers.long(v1.EvaluationRequested, lease=lambda event, _: f"test:{event.evaluation_id}")
    async def work(event: v1.EvaluationRequested, task: LeasedTask, _service: Any) -> None:
        if not state["mended"]:
            raise Refused("the judge is not set up")
        await asyncio.sleep(0.2)
        state["done"] += 1
        async with task.finish():
            pass

    async with served(handlers, settings_of, mint) as client, client() as operator:
        event = v1.EvaluationRequested(evaluation_id="long", adapter_id="a-lora-v1.0.0", domain="shop")
        await jetstream.publish(row_of(v1.EvaluationRequested).subject, event.to_json(), headers={"ce-id": "long"})
        [letter] = await listed(operator, "long")
        state["mended"] = True
        answer = await operator.post(f"/v1/dead-letters/{letter['id']}/replay")
        assert (answer.status_code, answer.json()) == (202, {"outcome": "started"})
        assert (await operator.post(f"/v1/dead-letters/{letter['id']}/replay")).status_code == 409

        async def gone() -> bool:
            return not await letters_of(operator, "long")

        await eventually(gone)
        assert state["done"] == 1


async def test_the_server_refuses_a_service_the_letters_of_another(servers, jetstream: JetStreamContext) -> None:
    await jetstream.publish("lorafleet.dlq.trainer.data_sample_recorded.1-1", b"{}")
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    client = await servers.connect_nats("registry", error_cb=note)
    try:
        theirs = client.jetstream(timeout=0.5)
        with pytest.raises((TimeoutError, APIError)):
            await theirs.get_last_msg(DEAD_STREAM, "lorafleet.dlq.trainer.data_sample_recorded.1-1", direct=True)
        with pytest.raises((TimeoutError, APIError)):
            headers = {"Nats-Rollup": "sub"}
            await theirs.publish("lorafleet.dlq.trainer.data_sample_recorded.1-1", b"", timeout=0.5, headers=headers)
        assert len([one for one in refusals if "permissions violation" in one.lower()]) == 2
    finally:
        await client.close()
