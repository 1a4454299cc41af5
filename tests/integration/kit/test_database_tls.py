"""PostgreSQL over TLS, as a service's pool and its migrations reach it.

The PostgreSQL of the embedded stack is built without TLS, so a front of the test takes the TLS off before it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet_cli.stack import Fleet
from fleet_cli.stack.certificates import Certificates, load_or_create_certificates
from fleet_cli.stack.home import Home
from fleet_cli.stack.postgres import postgres_url
from fleet_kit.db import connect_pool
from fleet_kit.migrate import MigrationFailed, migrate
from fleet_kit.tls import Tls, TlsFiles, database_address

pytestmark = pytest.mark.integration

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return load_or_create_certificates(Home.open(tmp_path / "home"))


@pytest.fixture
async def front(servers: Fleet, made: Certificates) -> AsyncIterator[int]:
    """Port of a PostgreSQL that takes no connection without TLS."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(8) != SSL_REQUEST:
                return
            writer.write(b"S")
            await writer.start_tls(server_side)
            theirs, ours = await asyncio.open_connection("127.0.0.1", servers.ports["postgres"])
            await asyncio.gather(copy(reader, ours), copy(theirs, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client trusts another authority, or has gone
        finally:
            writer.close()

    server_side = Tls(TlsFiles(made.ca, made.certificate, made.key)).server
    assert server_side is not None
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def address(servers: Fleet, port: int, mode: str) -> str:
    plain = postgres_url("registry", servers.credentials.postgres["registry"], port)
    return plain.replace("?sslmode=disable", f"?sslmode={mode}" if mode else "")


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require", ""])
async def test_tables_are_migrated_over_tls(servers: Fleet, front: int, made: Certificates, mode: str) -> None:
    await asyncio.to_thread(migrate, "registry", address(servers, front, mode), made.ca)


async def test_without_a_mode_tables_are_migrated_on_a_server_without_tls_too(servers: Fleet) -> None:
    await asyncio.to_thread(migrate, "registry", address(servers, servers.ports["postgres"], ""))


async def test_a_service_verifies_its_database_by_the_fleets_authority(
    servers: Fleet, front: int, made: Certificates, tmp_path: Path
) -> None:
    url = address(servers, front, "verify-full")
    async with connect_pool("registry", database_address(url, made.ca), 1) as pool:
        assert await pool.fetchval("select current_schema()") == "registry"
    other = load_or_create_certificates(Home.open(tmp_path / "other")).ca
    async with connect_pool("registry", database_address(url, other), 1) as pool:
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.fetchval("select 1")
    with pytest.raises(MigrationFailed, match="certificate"):
        await asyncio.to_thread(migrate, "registry", url, other)
