"""Another model answers where the requested one cannot, and only where the caller allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import httpx
import pytest
from fastapi import FastAPI

from fleet_kit.auth import Caller
from inference import events
from inference.scripted import ScriptedLoader, running, settle
from inference.surface import MODEL, application
from services.inference.catalogue import Catalogue, CatalogueEvent
from services.inference.http import api
from services.inference.slots.adapters import Adapters

pytestmark = pytest.mark.unit
REVISION = "0" * 64
V1, V2 = events.adapter("1.0.0", base=REVISION), events.adapter("2.0.0", base=REVISION)
ACTIVE = (events.registered(V1, 1), events.activated(V1, 2))


@asynccontextmanager
async def serving(
    *known: CatalogueEvent, domains: frozenset[str] = frozenset({"*"}), **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Adapters, ScriptedLoader, FastAPI]]:
    """The routes with adapters in real slots, after these events of the registry."""
    loader = ScriptedLoader()
    app, _ = application()
    parts = app.dependency_overrides[api._parts]()
    catalogue = Catalogue()
    for event in known:
        catalogue = catalogue.apply(event)
    async with running(loader) as adapters:
        hosted = replace(parts.hosting.all[0], adapters=adapters)
        hosting = type(parts.hosting)([hosted])
        projection = SimpleNamespace(catalogue=catalogue)
        parts.generator = replace(parts.generator, hosting=hosting, projection=projection, **settings)
        parts.hosting, parts.projection = hosting, projection
        caller = Caller("user", frozenset({"generate"}), domains)
        [generates] = get_args(api.Generates)[1:]
        for dependency in (api._asks, generates.dependency):
            app.dependency_overrides[dependency] = lambda: caller
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inference") as client:
            yield client, adapters, loader, app


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Open?"}], **more}


def between(app: FastAPI, happens: Callable[[], Any]) -> None:
    """Have something happen after a request's adapters are known to be there, and before they are used."""
    parts = app.dependency_overrides[api._parts]()
    vocabulary = parts.hosting.all[0].vocabulary
    of_turns = vocabulary.of_turns

    async def then(*turns: Any, **more: Any) -> list[int]:
        await happens()
        return list(await of_turns(*turns, **more))

    vocabulary.of_turns = then


@pytest.mark.parametrize("stream", [False, True])
async def test_an_adapter_with_a_fallback_is_held_from_the_choice_to_the_answers_end(stream: bool) -> None:
    async with serving(*ACTIVE) as (http, adapters, loader, app):
        evicted: list[str] = []

        async def evict() -> None:
            evicted.extend(await adapters.evict("test"))

        between(app, evict)
        answer = await http.post("/v1/chat/completions", json=chat("law-lora", fallback=MODEL, stream=stream))
        assert answer.status_code == 200, answer.text
        assert evicted == []
        assert loader.calls == ["fetch 1.0.0", "load 1.0.0"]
        await settle()
        assert await adapters.evict("test") == (V1.adapter_id,), "it is given back at the answer's end"


async def test_an_adapter_is_given_back_where_the_request_turns_out_to_be_refused() -> None:
    async with serving(*ACTIVE) as (http, adapters, _, _app):
        answer = await http.post("/v1/chat/completions", json=chat("law-lora", fallback=MODEL, max_tokens=10**6))
        assert answer.status_code == 400
        await settle()
        assert await adapters.evict("test") == (V1.adapter_id,)


PENDING = (events.registered(V1, 1), events.activated(V1, 2), events.registered(V2, 3))


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("law-lora@2.0.0", PENDING),
        ("law-lora-v2.0.0", (*PENDING, events.approved(V2, 4))),
        ("law-lora-v2.0.0", (*PENDING, events.rejected(V2, 4))),
        ("law-lora", (events.registered(V1, 1),)),
    ],
)
async def test_a_fallback_answers_for_a_version_that_is_not_approved_and_active(
    model: str, known: tuple[CatalogueEvent, ...]
) -> None:
    async with serving(*known) as (http, *_):
        refused = await http.post("/v1/chat/completions", json=chat(model))
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        answer = await http.post("/v1/chat/completions", json=chat(model, fallback=MODEL))
        assert answer.status_code == 200, answer.text
        extra = answer.json()["lorafleet"]
        assert (extra["adapter_id"], extra["fallback"]["reason"]) == (None, "adapter_not_approved")
        assert extra["fallback"]["requested"] == model
        assert "not approved and active" in extra["fallback"]["message"]


async def test_a_configured_fallback_answers_for_a_pending_version_of_its_family() -> None:
    async with serving(*PENDING, fallbacks={"law-lora": "law-lora"}) as (http, *_):
        answer = await http.post("/v1/chat/completions", json=chat("law-lora@2.0.0", fallback=True))
        assert answer.json()["lorafleet"]["adapter_id"] == V1.adapter_id


async def test_no_fallback_answers_for_what_is_unknown_or_of_another_domain() -> None:
    async with serving(*PENDING, domains=frozenset({"tax"})) as (http, *_):
        for model in ("law-lora@2.0.0", "law-lora", "ghost"):
            answer = await http.post("/v1/chat/completions", json=chat(model, fallback=MODEL))
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
