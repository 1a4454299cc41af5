"""A service that asks its clients for a certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fleet_cli.stack.certificates import Certificates, load_or_create_certificates
from fleet_cli.stack.home import Home
from fleet_kit.auth import LocalIssuer
from fleet_kit.tls import Tls, TlsFiles, client_context
from tests.integration.kit.http.conftest import Doors, serving_with

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return load_or_create_certificates(Home.open(tmp_path_factory.mktemp("certificates")))


@pytest.fixture(scope="module")
def asking(
    issuer: tuple[LocalIssuer, Path], made: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Doors]:
    settings = {
        "LORAFLEET_TLS_CERTIFICATE_FILE": str(made.certificate),
        "LORAFLEET_TLS_KEY_FILE": str(made.key),
        "LORAFLEET_TLS_CLIENT_CA_FILE": str(made.ca),
    }
    with serving_with(issuer, tmp_path_factory.mktemp("asking"), settings, made.trust) as doors:
        yield doors


def get(doors: Doors, path: str, tls: Tls) -> httpx.Response:
    headers = {"Authorization": f"Bearer {doors.token}"}
    return httpx.get(f"https://127.0.0.1:{doors.port}{path}", headers=headers, verify=tls.client)


def test_a_client_that_shows_a_certificate_of_the_authority_is_answered(asking: Doors, made: Certificates) -> None:
    known = Tls(TlsFiles(made.ca, made.certificate, made.key))
    assert get(asking, "/v1/items/one", known).json() == "one"


def test_a_client_without_one_reaches_nothing_but_the_probes(asking: Doors, made: Certificates) -> None:
    unknown = Tls(TlsFiles(made.ca))
    refused = get(asking, "/v1/items/one", unknown)
    assert (refused.status_code, refused.json()["title"]) == (403, "Certificate required")
    assert get(asking, "/metrics", unknown).status_code == 403
    assert get(asking, "/healthz", unknown).status_code == 200


def test_a_certificate_of_another_authority_ends_the_handshake(
    asking: Doors, made: Certificates, tmp_path: Path
) -> None:
    other = load_or_create_certificates(Home.open(tmp_path))
    trust = client_context(made.ca)
    trust.load_cert_chain(other.certificate, other.key)
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        httpx.get(f"https://127.0.0.1:{asking.port}/healthz", verify=trust)
