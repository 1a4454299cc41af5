"""The console is not ready once it no longer follows the bus: its live page would stand still without a word."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from services.console.feed import Feed
from services.console.parts import open_parts

pytestmark = pytest.mark.unit


def service() -> Any:
    settings = SimpleNamespace(live_events=10, live_minutes=1.0)
    return SimpleNamespace(settings=settings, jetstream=None, extra_checks={})


@pytest.mark.parametrize(
    ("fault", "told"), [(PermissionError("no right to follow"), "no right to follow"), (None, "it was ended")]
)
async def test_a_feed_that_has_ended_is_reported_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None, told: str
) -> None:
    end = asyncio.Event()

    async def follow(_feed: Feed, _jetstream: object) -> None:
        await end.wait()
        if fault is not None:
            raise fault

    monkeypatch.setattr(Feed, "follow", follow)
    running = service()
    async with open_parts(running):
        await running.extra_checks["feed"]()
        end.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=f"no longer followed: .*{told}"):
            await running.extra_checks["feed"]()
