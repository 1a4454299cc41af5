"""For whom a generator's endpoint is asked, and with which token."""

from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from fleet_kit.acting_for import ACT_FOR
from fleet_kit.auth import LocalIssuer
from services.trainer.datasets.generators.endpoint import ChatClient
from services.trainer.datasets.settings import GenerationEndpoint

pytestmark = pytest.mark.unit

OURS = {"url": "http://inference:8105/v1", "model": "base"}
FOREIGN = {"url": "https://api.example.com/v1", "model": "other", "foreign": True}


def headers_to(endpoint: GenerationEndpoint, *domains: str) -> httpx.Headers:
    with ChatClient(endpoint.opened(domains, None), "") as client:
        return client._http.headers


def test_a_server_of_the_fleet_is_called_for_the_domains_of_the_builds_requester(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("ours\n")
    endpoint = GenerationEndpoint.model_validate({**OURS, "token_file": str(tmp_path / "token")})
    sent = headers_to(endpoint, "alpha", "gamma")
    assert (sent["Authorization"], sent[ACT_FOR]) == ("Bearer ours", "alpha,gamma")
    assert headers_to(endpoint)[ACT_FOR] == "-"


def test_a_foreign_server_is_not_told_any_domain_and_gets_its_own_token() -> None:
    sent = headers_to(GenerationEndpoint.model_validate({**FOREIGN, "token": "theirs"}), "alpha")
    assert sent["Authorization"] == "Bearer theirs"
    assert ACT_FOR not in sent


@pytest.mark.parametrize("where", ["token", "token_file"])
def test_a_foreign_server_with_a_token_of_the_fleet_is_refused_when_it_is_configured(
    tmp_path: Path, where: str
) -> None:
    token = LocalIssuer.create(tmp_path).mint("trainer", ["generate"])
    (tmp_path / "token").write_text(token)
    given = token if where == "token" else str(tmp_path / "token")
    with pytest.raises(ValidationError, match="no foreign server may have"):
        GenerationEndpoint.model_validate({**FOREIGN, where: given})


def test_a_token_of_the_fleet_that_is_written_later_does_not_go_to_a_foreign_server_either(tmp_path: Path) -> None:
    endpoint = GenerationEndpoint.model_validate({**FOREIGN, "token_file": str(tmp_path / "token")})
    (tmp_path / "token").write_text(LocalIssuer.create(tmp_path).mint("trainer", ["generate"]))
    with pytest.raises(ValueError, match="no foreign server may have"):
        endpoint.opened(("alpha",), None)
