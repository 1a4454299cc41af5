"""What requests to the object store carry: the bucket's region, a session token, the bucket's place in the URL."""

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from fleet_kit.blobs import Blobs
from fleet_kit.settings import ServiceSettings

pytestmark = pytest.mark.unit


class Store(ThreadingHTTPServer):
    """Keeps what is put and remembers each request; refuses requests that are signed for another region, as AWS."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.kept: dict[str, bytes] = {}
        self.seen: list[dict[str, str]] = []
        self.region = "eu-central-1"


class _Request(BaseHTTPRequestHandler):
    server: Store

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", etag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        self.wfile.write(body)

    def refused(self) -> bool:
        signed = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3", self.headers["Authorization"] or "")
        region = signed[1] if signed else ""
        token = self.headers.get("X-Amz-Security-Token", "")
        self.server.seen.append({"host": self.headers["Host"], "path": self.path, "region": region, "token": token})
        if region != self.server.region:
            code = f"<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting {self.server.region}</Message>"
            self.answer(400, code.encode() + b"</Error>")
        return region != self.server.region

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.refused():
            self.server.kept[self.path] = body
            self.answer(200, etag=hashlib.md5(body).hexdigest())

    def do_GET(self) -> None:
        if not self.refused():
            self.answer(200, self.server.kept[self.path])


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def blobs(store: Store) -> Callable[..., Blobs]:
    """`blobs(s3_region="eu-central-1")`: the object store as the trainer sees it with these settings."""

    def connect(**changes: Any) -> Blobs:
        given = {
            "port": 1, "nats_url": "nats://x", "jwks": "x", "s3_endpoint": f"http://127.0.0.1:{store.server_port}",
            "s3_access_key": "key", "s3_secret_key": "secret-secret", "s3_bucket": "adapters", "s3_region": store.region,
        }  # fmt: skip
        return Blobs("trainer", ServiceSettings(**(given | changes)))

    return connect


async def there_and_back(blobs: Blobs) -> bytes:
    return await blobs.get(await blobs.put("artifacts", b"an adapter"))


async def test_requests_are_signed_for_the_region_of_the_setting_and_none_looks_it_up(
    store: Store, blobs: Callable[..., Blobs]
) -> None:
    assert await there_and_back(blobs()) == b"an adapter"
    assert [one["region"] for one in store.seen] == ["eu-central-1"] * 2
    assert all(one["path"].startswith("/adapters/trainer/artifacts/") for one in store.seen)


async def test_a_wrong_region_is_named_by_the_probe(blobs: Callable[..., Blobs]) -> None:
    with pytest.raises(Exception, match="expecting eu-central-1"):
        await blobs(s3_region="us-east-1").probe()


async def test_temporary_keys_send_their_session_token_and_lasting_keys_none(
    store: Store, blobs: Callable[..., Blobs]
) -> None:
    await there_and_back(blobs(s3_session_token="of-a-role"))
    await there_and_back(blobs())
    await there_and_back(blobs(s3_session_token=""))
    assert [one["token"] for one in store.seen] == ["of-a-role"] * 2 + [""] * 4


async def test_virtual_addressing_names_the_bucket_in_the_host(
    store: Store, blobs: Callable[..., Blobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **named: Any) -> Any:
        return known("127.0.0.1" if host == "adapters.s3.test" else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    endpoint = f"http://s3.test:{store.server_port}"
    assert await there_and_back(blobs(s3_endpoint=endpoint, s3_addressing="virtual")) == b"an adapter"
    assert {one["host"] for one in store.seen} == {f"adapters.s3.test:{store.server_port}"}
    assert all(one["path"].startswith("/trainer/artifacts/") for one in store.seen)


@pytest.mark.parametrize("given", ["http://127.0.0.1:{}", "http://127.0.0.1:{}/", "127.0.0.1:{}"])
async def test_an_endpoint_may_be_a_url_or_host_and_port(given: str, store: Store, blobs: Callable[..., Blobs]) -> None:
    assert await there_and_back(blobs(s3_endpoint=given.format(store.server_port))) == b"an adapter"


async def test_an_https_endpoint_is_never_spoken_to_without_tls(store: Store, blobs: Callable[..., Blobs]) -> None:
    with pytest.raises(Exception, match="SSL"):
        await blobs(s3_endpoint=f"https://127.0.0.1:{store.server_port}", s3_secure=False).probe()
    assert not store.seen


@pytest.mark.parametrize("wrong", [{"s3_region": "eu central"}, {"s3_region": ""}, {"s3_addressing": "host"}])
def test_a_region_or_addressing_that_is_none_is_refused_at_the_start(
    wrong: dict[str, str], blobs: Callable[..., Blobs]
) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        blobs(**wrong)
