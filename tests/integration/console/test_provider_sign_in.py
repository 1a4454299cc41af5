"""Sign in on an identity provider's page: the code flow with PKCE, and what may not begin a session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.conftest import RunningService, RunService
from tests.integration.console.identity_provider import CLIENT, IdentityProvider, identity_provider

pytestmark = pytest.mark.integration
PUBLIC = "http://console.test"


@pytest.fixture(scope="module")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IdentityProvider]:
    async with identity_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
async def with_provider(
    run_service: RunService,
    registry: RunningService,
    provider: IdentityProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningService]:
    rules = tmp_path_factory.mktemp("rules") / "rules.json"
    company = {"name": "company", "issuer": provider.url, "audience": CLIENT}
    approvers = {"name": "approvers", "when": {"roles": "Approver"}, "scopes": ["adapters:read"], "domains": "shop"}
    rules.write_text(json.dumps({"providers": [company], "rules": [approvers]}))
    settings = {
        "LORAFLEET_REGISTRY_URL": registry.url,
        "LORAFLEET_CONSOLE_URL": PUBLIC,
        "LORAFLEET_ACCESS_RULES": str(rules),
        "LORAFLEET_OIDC_ISSUER": provider.url,
        "LORAFLEET_OIDC_CLIENT_ID": CLIENT,
    }
    async with run_service("console", **settings) as running:
        yield running


@pytest.fixture
async def browser(with_provider: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=with_provider.url, timeout=30) as client:
        yield client


async def to_the_provider(browser: httpx.AsyncClient, next: str = "/console/live") -> str:
    """Begin, sign in there, and return the address that the provider sends the browser back to."""
    begun = await browser.get("/console/sign-in/provider", params={"next": next})
    assert begun.status_code == 303, begun.text
    async with httpx.AsyncClient() as there:
        back = (await there.get(begun.headers["location"])).headers["location"]
    assert back.startswith(f"{PUBLIC}/console/sign-in/answer?")
    return back.removeprefix(PUBLIC)


async def test_who_signs_in_there_is_signed_in_here_with_the_rights_that_the_rules_give(
    browser: httpx.AsyncClient,
) -> None:
    assert "/console/sign-in/provider" in (await browser.get("/console/sign-in")).text
    answer = await browser.get(await to_the_provider(browser))
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "/console/live"
    page = await browser.get("/console/live")
    assert page.status_code == 200
    assert "company:ann" in page.text


async def test_an_answer_counts_once_and_only_in_the_browser_that_began(
    browser: httpx.AsyncClient, with_provider: RunningService
) -> None:
    back = await to_the_provider(browser)
    async with httpx.AsyncClient(base_url=with_provider.url) as other:
        stolen = await other.get(back)
        assert stolen.status_code == 401
        assert "no sign-in of this browser" in stolen.text
        assert "lorafleet_session" not in stolen.headers.get("set-cookie", "")
    forged = await browser.get(back.replace("state=", "state=x"))
    assert forged.status_code == 401
    back = await to_the_provider(browser)
    kept = httpx.Cookies(browser.cookies)
    assert (await browser.get(back)).status_code == 303
    browser.cookies = kept
    again = await browser.get(back)
    assert again.status_code == 401
    assert "invalid_grant" in again.text


async def test_another_page_than_the_consoles_is_not_where_it_leads(browser: httpx.AsyncClient) -> None:
    answer = await browser.get(await to_the_provider(browser, "https://evil.example"))
    assert answer.headers["location"] == "/console/"


async def test_an_answer_of_another_issuer_is_refused(browser: httpx.AsyncClient) -> None:
    back = await to_the_provider(browser)
    mixed = await browser.get(back.replace("iss=http", "iss=https"))
    assert mixed.status_code == 401
    assert "the answer is from" in mixed.text


async def test_a_refusal_of_the_provider_is_shown(browser: httpx.AsyncClient, provider: IdentityProvider) -> None:
    provider.refusing = True
    try:
        answer = await browser.get(await to_the_provider(browser))
    finally:
        provider.refusing = False
    assert answer.status_code == 401
    assert "access_denied" in answer.text


async def test_a_provider_of_another_name_is_not_trusted(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    provider.names_itself = "https://other.example"
    try:
        answer = await browser.get("/console/sign-in/provider")
    finally:
        provider.names_itself = ""
    assert answer.status_code == 503
    assert "LORAFLEET_OIDC_ISSUER" in answer.text


async def test_a_console_without_a_provider_offers_none(console: RunningService) -> None:
    async with httpx.AsyncClient(base_url=console.url) as browser:
        assert "sign-in/provider" not in (await browser.get("/console/sign-in")).text
        assert (await browser.get("/console/sign-in/provider")).status_code == 404
