"""Sessions: whose token a request carries, and which forms are ours."""

from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from services.console.pages.sign_in import own_page
from services.console.session import SessionCookie, form_token, form_token_is_good, start_session

pytestmark = pytest.mark.unit


async def headers_behind(path: str, *headers: tuple[bytes, bytes]) -> dict[str, str]:
    found: dict[str, str] = {}

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        found.update({name.decode(): value.decode() for name, value in scope["headers"]})

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(_message: Any) -> None:
        raise AssertionError("nothing is sent")

    await SessionCookie(app)({"type": "http", "path": path, "headers": list(headers)}, receive, send)
    return found


async def test_the_cookie_becomes_the_token_of_a_page_and_of_nothing_else() -> None:
    cookie = (b"cookie", b"other=1; lorafleet_session=abc.def")
    assert (await headers_behind("/console/", cookie))["authorization"] == "Bearer abc.def"
    assert (await headers_behind("/console", cookie))["authorization"] == "Bearer abc.def"
    for path in ("/metrics", "/consoles", "/console-metrics"):
        assert "authorization" not in await headers_behind(path, cookie)
    assert "authorization" not in await headers_behind("/console/")


async def test_a_token_that_a_request_carries_itself_is_left_alone() -> None:
    found = await headers_behind("/console/", (b"cookie", b"lorafleet_session=abc"), (b"authorization", b"Bearer mine"))
    assert found["authorization"] == "Bearer mine"


def test_a_form_of_another_session_is_not_taken() -> None:
    assert form_token_is_good(form_token("one"), "one")
    assert not form_token_is_good(form_token("two"), "one")
    assert not form_token_is_good("", "one")
    assert not form_token_is_good("ü", "one")


@pytest.mark.parametrize("secure", [True, False])
def test_no_script_reads_the_cookie_and_tls_keeps_it_on_tls(secure: bool) -> None:
    answer = Response()
    start_session(answer, "abc", secure=secure)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/console" in cookie
    assert ("secure" in cookie) == secure


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/console//evil.example", "/\\evil", "/console/\\evil", "", "/v1/adapters",
     "/console/sign-in?next=x", "/console/\r\nset-cookie: a=b"],
)  # fmt: skip
def test_after_signing_in_one_stays_in_the_console(wanted: str) -> None:
    assert own_page(wanted) == "/console/"
    assert own_page("/console/review/a?x=1") == "/console/review/a?x=1"
