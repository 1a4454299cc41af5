"""A response ends once the bus has what was published of its answers, unless that would take long."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from services.inference.backlog import FEW, UNPUBLISHED, Backlog, Publications
from tests.unit.inference.surface import application, chat

pytestmark = pytest.mark.unit


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.requirement("LA-1.4")
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 2}])
async def test_a_response_ends_only_once_what_its_answers_published_is_on_the_bus(more: dict[str, Any]) -> None:
    events, recorded = Backlog(), Backlog()
    events.put()
    recorded.put()
    app, _ = application(publications=Publications((events, recorded), 60))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inference") as client:
        response = asyncio.create_task(client.post("/v1/chat/completions", json=chat(**more)))
        events.left()
        await asyncio.wait({response}, timeout=0.5)
        assert not response.done()
        recorded.left()
        assert (await response).status_code == 200


async def test_everything_put_before_is_waited_for_and_nothing_that_comes_later() -> None:
    backlog = Backlog()
    assert await backlog.passed()
    for _ in range(2):
        backlog.put()
    waits = asyncio.create_task(backlog.passed())
    await settle()
    backlog.put()
    backlog.left()
    await settle()
    assert not waits.done()
    backlog.dropped()
    assert await waits


async def test_nobody_waits_while_the_bus_is_unavailable_and_again_once_it_is_back() -> None:
    backlog = Backlog()
    backlog.put()
    waits = asyncio.create_task(backlog.passed())
    await settle()
    backlog.stuck()
    assert not await waits
    assert not await backlog.passed()
    backlog.left()
    backlog.put()
    waits = asyncio.create_task(backlog.passed())
    await settle()
    assert not waits.done()
    backlog.left()
    assert await waits


async def test_what_was_left_over_from_an_outage_holds_up_no_response() -> None:
    backlog = Backlog()
    for _ in range(FEW + 1):
        backlog.put()
    assert not await backlog.passed()


async def test_a_response_that_ended_before_its_events_were_on_the_bus_is_counted() -> None:
    backlog = Backlog()
    backlog.put()
    before = UNPUBLISHED._value.get()
    await Publications((backlog,), 0.01).settled()
    assert UNPUBLISHED._value.get() == before + 1
    backlog.left()
    await Publications((backlog,), 0.01).settled()
    assert UNPUBLISHED._value.get() == before + 1
