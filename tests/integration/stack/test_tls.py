"""A stack with TLS: every part is reached by clients that trust its authority, and by no others."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Iterator

import httpx
import nats
import pytest
import urllib3
from minio import Minio
from typer.testing import CliRunner

from fleet_cli.app import root
from fleet_cli.stack import Fleet
from fleet_cli.stack.objects import BUCKET
from fleet_events import v1
from fleet_events.topology import row_of
from lorafleet import calls
from lorafleet.clients import FleetClient
from lorafleet.home import FleetHome
from tests.conftest import RunService

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("tls"), tls=True) as fleet:
        fleet.start(("registry",))
        yield fleet


def authority(fleet: Fleet) -> str:
    assert fleet.info.ca_file is not None
    return str(fleet.info.ca_file)


def test_the_command_line_trusts_the_authority_that_its_fleet_file_names(fleet: Fleet) -> None:
    home = FleetHome(fleet.home.root, {})
    with FleetClient(home) as client:
        assert client.call(calls.adapters()) == []
    command = ["events", "publish", "--home", str(fleet.home.root), "SampleRecorded", "-"]
    shown = CliRunner().invoke(root.typer, command, SAMPLE)
    assert shown.exit_code == 0, shown.output


SAMPLE = '{"domain": "shop", "sample_id": "s-1", "prompt": "a", "completion": "b"}'


def test_a_service_answers_nobody_in_the_clear_and_no_client_without_its_authority(fleet: Fleet) -> None:
    url = fleet.info.services["registry"].url
    trusting = ssl.create_default_context(cafile=authority(fleet))
    assert httpx.get(f"{url}/healthz", verify=trusting).status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/healthz")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url.replace('https', 'http')}/healthz")


async def test_the_bus_takes_no_user_in_the_clear_and_shows_a_certificate_of_its_authority(fleet: Fleet) -> None:
    seed = str(fleet.credentials.nats_seeds["admin"])
    address = fleet.info.nats_url.removeprefix("tls://")
    trust = ssl.create_default_context(cafile=authority(fleet))
    client = await fleet.connect_nats("admin")
    assert (await client.jetstream().stream_info(row_of(v1.AdapterRegistered).stream.name)).config.name
    await client.close()

    # A client that begins in the clear is told to go on with TLS: ordinary tools need no flag for the handshake.
    client = await nats.connect(f"nats://{address}", nkeys_seed=seed, tls=trust)
    await client.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await nats.connect(f"tls://{address}", nkeys_seed=seed, allow_reconnect=False, tls=ssl.create_default_context())
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert b'"tls_required":true' in await reader.readline()
    writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
    assert b"PONG" not in await reader.read()
    writer.close()


def test_the_object_store_answers_over_tls_alone(fleet: Fleet) -> None:
    key, address = fleet.credentials.s3["admin"], fleet.info.s3_endpoint.removeprefix("https://")

    def store(*, secure: bool, ca: str | None) -> Minio:
        pool = urllib3.PoolManager(retries=False, ca_certs=ca, cert_reqs="CERT_REQUIRED")
        return Minio(address, key.access, key.secret, secure=secure, region="us-east-1", http_client=pool)

    assert store(secure=True, ca=authority(fleet)).bucket_exists(BUCKET)
    with pytest.raises(urllib3.exceptions.SSLError):
        store(secure=True, ca=None).bucket_exists(BUCKET)
    host, _, port = address.partition(":")
    plain = http.client.HTTPConnection(host, int(port))
    plain.request("GET", "/status")
    assert plain.getresponse().status == 400


async def test_a_service_ends_where_its_bus_url_demands_tls_and_the_bus_does_not(
    servers: Fleet, run_service: RunService
) -> None:
    demanding = servers.info.nats_url.replace("nats://", "tls://")
    async with run_service("registry", ready=False, LORAFLEET_NATS_URL=demanding) as registry:
        registry.single.process.start()
        async with asyncio.timeout(20):
            while not registry.single.process.exits:
                await asyncio.sleep(0.05)
        assert "the server there does not require TLS" in registry.single.log
