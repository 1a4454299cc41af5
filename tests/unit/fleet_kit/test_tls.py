"""TLS of a service: what it trusts and shows, and that renewed files reach new connections without a restart."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from fleet_cli.stack.certificates import Certificates, load_or_create_certificates
from fleet_cli.stack.home import Home
from fleet_kit import tls as tls_module
from fleet_kit.settings import ServiceSettings
from fleet_kit.tls import Tls, TlsFiles, client_context, database_address

pytestmark = pytest.mark.unit


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return load_or_create_certificates(Home.open(tmp_path / "home"))


@pytest.fixture
def tls(made: Certificates) -> Tls:
    return Tls(TlsFiles(made.ca, made.certificate, made.key))


def of_another_home(tmp_path: Path) -> Certificates:
    return load_or_create_certificates(Home.open(tmp_path / "another"))


@asynccontextmanager
async def listening(tls: Tls) -> AsyncIterator[int]:
    """The port of a server with this TLS."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls.server)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def serial_at(port: int, trust: ssl.SSLContext) -> object:
    """Serial number of the certificate that the server shows; raises ssl.SSLError for one that is not trusted."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    shown = writer.get_extra_info("peercert")
    writer.close()
    return shown["serialNumber"]


def renew(made: Certificates) -> None:
    """Has the same authority make another certificate, in the same files."""
    made.certificate.unlink()
    load_or_create_certificates(Home.open(made.ca.parents[2]))


async def test_a_renewed_certificate_is_shown_without_a_restart(made: Certificates, tls: Tls) -> None:
    async with listening(tls) as port:
        before = await serial_at(port, made.trust)
        assert not tls.reload()
        renew(made)
        assert tls.reload()
        assert await serial_at(port, made.trust) != before


async def test_a_process_looks_at_its_files_by_itself(
    made: Certificates, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_module, "CHECK_SECONDS", 0.01)
    watching = asyncio.create_task(tls.watch())
    async with listening(tls) as port, asyncio.timeout(10):
        before = await serial_at(port, made.trust)
        renew(made)
        while await serial_at(port, made.trust) == before:
            await asyncio.sleep(0.01)
    watching.cancel()


async def test_a_renewal_that_is_only_half_written_leaves_the_old_certificate(
    made: Certificates, tls: Tls, tmp_path: Path
) -> None:
    async with listening(tls) as port:
        before = await serial_at(port, made.trust)
        shutil.copy(of_another_home(tmp_path).key, made.key)
        assert not tls.reload()
        assert await serial_at(port, made.trust) == before
        renew(made)
        assert tls.reload()
        assert await serial_at(port, made.trust) != before


async def test_a_server_of_another_authority_is_not_trusted(tls: Tls, tmp_path: Path) -> None:
    async with listening(tls) as port:
        for trust in (client_context(None), of_another_home(tmp_path).trust):
            with pytest.raises(ssl.SSLCertVerificationError):
                await serial_at(port, trust)


async def test_a_new_authority_is_trusted_once_its_file_has_it(made: Certificates, tls: Tls, tmp_path: Path) -> None:
    other = of_another_home(tmp_path)
    async with listening(Tls(TlsFiles(other.ca, other.certificate, other.key))) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await serial_at(port, tls.client)
        made.ca.write_text(made.ca.read_text() + other.ca.read_text())
        assert tls.reload()
        assert await serial_at(port, tls.client)


def test_the_end_of_the_certificate_is_measured(tls: Tls) -> None:
    assert tls.server is not None
    ends = REGISTRY.get_sample_value("lorafleet_certificate_expiry_timestamp_seconds")
    assert ends is not None
    assert ends > 1_700_000_000


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"tls_certificate_file": "here.pem"}, "tls_key_file"),
        ({"tls_key_file": "here.key"}, "tls_certificate_file"),
        ({"tls_client_ca_file": "ca.pem"}, "tls_client_ca_file needs tls_certificate_file"),
    ],
)
def test_files_that_need_another_are_refused_with_its_name(files: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ServiceSettings(port=1, nats_url="", s3_endpoint="", s3_access_key="", s3_secret_key="", jwks="", **files)  # type: ignore[arg-type]


def test_a_file_that_is_no_certificate_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tls_ca_file is .*missing.pem, expected certificates as PEM: No such file"):
        client_context(tmp_path / "missing.pem")
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(ValueError, match=r"tls_ca_file is .*ca.pem, expected certificates as PEM"):
        client_context(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("url", "completed"),
    [
        ("postgres://h/d?sslmode=verify-full", "postgres://h/d?sslmode=verify-full&sslrootcert=%2Fca.pem"),
        ("postgres://h/d?sslmode=verify-ca", "postgres://h/d?sslmode=verify-ca&sslrootcert=%2Fca.pem"),
        ("postgres://h/d?sslmode=verify-full&sslrootcert=/own", "postgres://h/d?sslmode=verify-full&sslrootcert=/own"),
        ("postgres://h/d?sslmode=require", "postgres://h/d?sslmode=require"),
        ("postgres://h/d", "postgres://h/d"),
    ],
)
def test_a_database_is_verified_by_the_fleets_authorities_where_its_url_verifies_by_no_others(
    url: str, completed: str
) -> None:
    assert database_address(url, Path("/ca.pem")) == completed
    assert database_address(url, None) == url
