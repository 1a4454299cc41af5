"""A console beside a real registry; the other services are not there, which their pages have to bear."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from tests.conftest import Mint, RunningService, RunService
from tests.integration.registry.conftest import domain, peft, registry, upstream

__all__ = ["domain", "peft", "registry", "upstream"]
SignIn = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
SCOPES = ("adapters:read", "adapters:write", "adapters:approve")


@pytest.fixture(scope="module")
async def console(run_service: RunService, registry: RunningService) -> AsyncIterator[RunningService]:
    async with run_service("console", LORAFLEET_REGISTRY_URL=registry.url) as running:
        yield running


@pytest.fixture
def sign_in(console: RunningService, mint: Mint) -> SignIn:
    """`async with sign_in("shop") as browser:` a client with a session for these domains, and no token of its own."""

    @asynccontextmanager
    async def session(
        *domains: str, scopes: tuple[str, ...] = SCOPES, subject: str = "ann"
    ) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=console.url, timeout=30) as browser:
            answer = await browser.post("/console/sign-in", data={"token": mint(scopes, domains or ("*",), subject)})
            assert answer.status_code == 303, answer.text
            yield browser

    return session
