"""The console on a real bus and a real registry: sessions, what one may see, decisions, the live stream."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_events import v1
from tests.conftest import Mint, RunningService
from tests.integration.console.conftest import SignIn
from tests.integration.registry.conftest import Upstream, permit_unjudged
from tests.integration.registry.uploads import upload

pytestmark = pytest.mark.integration


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


def fields(page: str) -> dict[str, str]:
    """What the form of a page sends, with a reason."""
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    assert hidden.keys() >= {"form_token", "seen_status", "seen_active"}
    return hidden | {"reason": "read the answers"}


async def registered(registry: RunningService, peft: Path, domain: str, **fields: str) -> str:
    answer = await upload(registry.client, peft, domain=domain, **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["adapter_id"])


async def test_without_a_session_every_page_leads_to_the_sign_in_and_back(console: RunningService) -> None:
    async with httpx.AsyncClient(base_url=console.url) as browser:
        answer = await browser.get("/console/review?x=1")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/console/sign-in?next=%2Fconsole%2Freview%3Fx%3D1"
        shown = await browser.get(answer.headers["location"])
        assert shown.status_code == 200
        assert 'value="/console/review?x=1"' in shown.text
        partial = await browser.get("/console/health", headers={"HX-Request": "true"})
        assert partial.headers["HX-Redirect"].startswith("/console/sign-in")


async def test_a_bad_token_is_refused_on_the_page_and_begins_no_session(console: RunningService) -> None:
    async with httpx.AsyncClient(base_url=console.url) as browser:
        answer = await browser.post("/console/sign-in", data={"token": "abc"})
        assert answer.status_code == 401
        assert "bearer token refused" in answer.text
        assert "set-cookie" not in answer.headers
        too_long = await browser.post("/console/sign-in", data={"token": "a" * 4000})
        assert "a browser keeps 3800" in too_long.text
        elsewhere = await browser.post(
            "/console/sign-in", data={"token": "abc"}, headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert elsewhere.status_code == 403


async def test_an_api_key_begins_a_session_too(
    console: RunningService, registry: RunningService, admin_token: str
) -> None:
    body = {"name": "ann", "scopes": ["adapters:read"], "domains": ["*"], "expires_seconds": 3600}
    made = (await registry.client.post("/v1/keys", json=body)).json()
    async with httpx.AsyncClient(base_url=console.url) as browser:
        async with asyncio.timeout(20):
            while (await browser.post("/console/sign-in", data={"token": made["key"]})).status_code != 303:
                await asyncio.sleep(0.1)
        assert (await browser.get("/console/")).status_code == 200


async def test_every_page_forbids_scripts_of_others_and_is_kept_by_no_cache(sign_in: SignIn) -> None:
    async with sign_in() as browser:
        answer = await browser.get("/console/")
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        style = re.search(r'href="(/console/assets/[^"]+\.css)"', answer.text)
        assert style is not None
        file = await browser.get(style[1])
        assert "immutable" in file.headers["cache-control"]
        assert file.headers["content-type"] == "text/css; charset=utf-8"


async def test_families_are_searched_sorted_and_paged_on_the_server_and_markup_stays_text(
    sign_in: SignIn, registry: RunningService, peft: Path, domain: str
) -> None:
    await registered(registry, peft, domain, description="<script>alert(1)</script> returns")
    async with sign_in(domain) as browser:
        page = await browser.get("/console/", params={"text": "RETURNS"})
        assert f"{domain}-lora" in page.text
        assert "1 waiting" in page.text
        nothing = await browser.get("/console/", params={"text": "100%"}, headers={"HX-Request": "true"})
        assert "0 families" in nothing.text
        assert "<html" not in nothing.text
        shown = await browser.get(f"/console/versions/{domain}-lora-v0.0.1")
        assert shown.status_code == 404
        wrong = await browser.get("/console/", params={"sort": "drop table"})
        assert wrong.status_code == 422
        assert "sort" in wrong.text


async def test_families_are_filtered_by_what_waits_what_serves_the_base_model_and_the_score(
    sign_in: SignIn, registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    adapter = await registered(registry, peft, domain)
    async with sign_in(domain) as browser:

        async def listed(**query: str) -> bool:
            answer = await browser.get("/console/", params=query, headers={"HX-Request": "true"})
            assert answer.status_code == 200, answer.text
            return adapter in answer.text

        for _ in range(6):  # also by the plan that a statement gets from its sixth call on
            assert await listed(show="waiting")
        assert await listed(show="none")
        assert not await listed(show="serving")
        assert not await listed(below="100"), "it has no score"
        assert await listed(show="", below="")

        async def version() -> dict[str, Any]:
            return dict((await registry.client.get(f"/v1/adapters/{adapter}")).json())

        base = (await version())["base_model"]
        for known in base.values():
            assert await listed(base=known), "its name or its revision"
        assert not await listed(base="another")
        assert not await listed(base=base["name"][:-1])
        await upstream.publish(upstream.scored(await version(), 76))
        async with asyncio.timeout(20):
            while not (await version())["evaluation"]:
                await asyncio.sleep(0.05)
        for verb in ("approve", "activate"):
            answer = await registry.client.post(f"/v1/adapters/{adapter}/{verb}", json={"reason": "r"})
            assert answer.status_code == 200, answer.text
        for _ in range(6):
            assert await listed(show="serving", below="76.5")
        assert not await listed(below="76")
        assert not await listed(show="none")
        assert not await listed(show="waiting")
        assert (await browser.get("/console/", params={"below": "high"})).status_code == 422


async def test_another_domain_is_not_shown_and_not_decided_on(
    sign_in: SignIn, registry: RunningService, peft: Path, domain: str
) -> None:
    adapter = await registered(registry, peft, domain)
    async with sign_in("elsewhere") as browser:
        assert domain not in (await browser.get("/console/")).text
        page = await browser.get(f"/console/versions/{adapter}")
        assert page.status_code == 404
        assert "Refused by a service" in page.text
        token = form_token((await browser.get("/console/")).text)
        refused = await browser.post(f"/console/versions/{adapter}/approve", data={"form_token": token})
        assert refused.status_code == 404
    assert (await registry.client.get(f"/v1/adapters/{adapter}")).json()["status"] == "pending_review"


async def test_a_decision_carries_the_viewers_name_and_the_second_person_is_told(
    sign_in: SignIn, registry: RunningService, peft: Path, domain: str
) -> None:
    adapter = await registered(registry, peft, domain, description="<b onmouseover=alert(1)>bold</b>")
    await permit_unjudged(registry, domain)
    async with sign_in(domain, subject="ann") as ann, sign_in(domain, subject="ben") as ben:
        page = await ann.get(f"/console/versions/{adapter}")
        assert page.status_code == 200, page.text
        assert "&lt;b onmouseover" in page.text
        second = await ben.get(f"/console/versions/{adapter}")
        answers = await asyncio.gather(
            ann.post(f"/console/versions/{adapter}/approve", data={**fields(page.text), "without_evaluation": "yes"}),
            ben.post(f"/console/versions/{adapter}/reject", data=fields(second.text)),
        )
        assert sorted(one.status_code for one in answers) == [303, 409]
        first = ("ann", "ben")[[one.status_code for one in answers].index(303)]
        told = next(one for one in answers if one.status_code == 409)
        assert f"decided by {first}; look again" in told.text
        trail = (await registry.client.get(f"/v1/adapters/{adapter}/audit")).json()["entries"]
        (decision,) = (one for one in trail if one["action"] in ("approved", "rejected"))
        assert (decision["actor"], decision["reason"]) == (first, "read the answers")


async def test_a_form_that_no_page_of_the_session_made_decides_nothing(
    sign_in: SignIn, registry: RunningService, peft: Path, domain: str
) -> None:
    adapter = await registered(registry, peft, domain)
    async with sign_in(domain) as browser, sign_in(domain) as other:
        stolen = form_token((await other.get("/console/")).text)
        for data in ({}, {"form_token": stolen + "0"}, {"form_token": "x"}):
            refused = await browser.post(f"/console/versions/{adapter}/reject", data=data)
            assert refused.status_code == 403
    assert (await registry.client.get(f"/v1/adapters/{adapter}")).json()["status"] == "pending_review"


async def test_a_session_without_the_scope_is_told_which_one_it_lacks(
    sign_in: SignIn, registry: RunningService, peft: Path, domain: str
) -> None:
    adapter = await registered(registry, peft, domain)
    async with sign_in(domain, scopes=("adapters:read",)) as browser:
        page = await browser.get(f"/console/versions/{adapter}")
        assert ">Approve<" not in page.text
        token = form_token(page.text)
        refused = await browser.post(f"/console/versions/{adapter}/approve", data={"form_token": token})
        assert refused.status_code == 403
        assert "adapters:approve" in refused.text
    async with sign_in(domain, scopes=("generate",)) as browser:
        assert (await browser.get("/console/live")).status_code == 403


async def test_a_service_that_does_not_answer_is_named_and_the_others_pages_stay(sign_in: SignIn) -> None:
    async with sign_in() as browser:
        jobs = await browser.get("/console/jobs")
        assert jobs.status_code == 503
        assert "trainer does not answer" in jobs.text
        course = await browser.get("/console/jobs/j/course")
        assert course.status_code == 503
        assert "trainer" in course.text
        health = await browser.get("/console/health")
        assert health.status_code == 200
        assert health.text.count("not ready") == 4
        assert (await browser.get("/console/")).status_code == 200


async def rows(browser: httpx.AsyncClient, seconds: float, stop: str, **params: str) -> str:
    """What the live stream sends until it has named `stop`."""
    text = ""
    async with asyncio.timeout(seconds), browser.stream("GET", "/console/live/events", params=params) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_text():
            text += piece
            if stop in text:
                return text
    raise AssertionError(text)


async def test_an_event_is_live_within_a_moment_for_those_who_reach_its_domain(
    sign_in: SignIn, registry: RunningService, upstream: Upstream, peft: Path, domain: str
) -> None:
    adapter = await registered(registry, peft, domain)
    async with sign_in(domain) as own, sign_in("*") as every, sign_in("elsewhere") as other:
        for browser in (own, every):
            text = await rows(browser, 10, adapter)
            assert "event: row" in text
            assert "AdapterRegistered" in text
        only = await rows(own, 10, adapter, type="AdapterRegistered")
        assert only.count("event: row") == 1
        place = re.findall(r"id: (\w+-\d+)", only)[-1]
        await upstream.publish(
            v1.GenerationCompleted(
                generation_id="g-1",
                adapter_id=adapter,
                domain=domain,
                base_model=upstream.base_name,
                base_model_revision=upstream.revision,
            )
        )
        later = await rows(own, 10, "GenerationCompleted", after=place)
        assert "AdapterRegistered" not in later
        page = (await other.get("/console/live")).text
        assert adapter not in page


async def test_a_stream_ends_when_its_token_is_revoked(
    console: RunningService, registry: RunningService, mint: Mint
) -> None:
    token = mint(("adapters:read",), ("*",), "leaver")
    async with httpx.AsyncClient(base_url=console.url, timeout=30) as browser:
        await browser.post("/console/sign-in", data={"token": token})
        await registry.client.post("/v1/tokens/revoke", json={"subject": "leaver", "reason": "left"})
        async with asyncio.timeout(20):
            while (await browser.get("/console/live")).status_code != 303:
                await asyncio.sleep(0.1)


async def test_a_link_of_another_site_signs_nobody_in_by_itself(console: RunningService) -> None:
    async with httpx.AsyncClient(base_url=console.url) as browser:
        for site, direct in (("none", True), ("same-origin", True), ("cross-site", False), ("same-site", False)):
            page = await browser.get("/console/sign-in", headers={"Sec-Fetch-Site": site})
            assert ("data-direct" in page.text) == direct
        assert "data-direct" not in (await browser.get("/console/sign-in")).text


async def test_a_segment_of_dots_reaches_no_other_path_of_a_service(sign_in: SignIn) -> None:
    async with sign_in() as browser:
        for path in ("/console/versions/%2e%2e", "/console/versions/%2e"):
            assert (await browser.get(path)).status_code in (400, 404), path


async def test_signing_out_takes_the_cookie_back(sign_in: SignIn) -> None:
    async with sign_in() as browser:
        token = form_token((await browser.get("/console/")).text)
        out = await browser.post("/console/sign-out", data={"form_token": token})
        assert out.headers["location"] == "/console/sign-in"
        assert (await browser.get("/console/")).status_code == 303
