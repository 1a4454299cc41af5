"""A real OpenID provider (npm `oidc-provider`), discovered and verified: `make test-clients`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fleet_cli.stack.ports import choose
from fleet_kit.access_rules import read_rules
from fleet_kit.auth import LocalIssuer, Verifier
from fleet_kit.errors import Problem

ENVIRONMENTS = os.environ.get("LORAFLEET_CLIENTS", "")
PROGRAM = Path(__file__).parents[2] / "clients" / "oidc_provider.mjs"
AUDIENCE = "https://lorafleet.example"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.heavy,
    pytest.mark.skipif(not ENVIRONMENTS, reason="LORAFLEET_CLIENTS: the folder of the environments that make installs"),
]


@contextmanager
def provider(port: int, algorithm: str, folder: Path) -> Iterator[str]:
    """The issuer of a provider that runs, with a key of this start."""
    # Node looks for packages beside the program.
    program = Path(ENVIRONMENTS) / ".venv-clients" / PROGRAM.name
    program.write_text(PROGRAM.read_text())
    log = folder / "provider.log"
    with log.open("w") as output:
        process = subprocess.Popen(["node", program, str(port), algorithm], stdout=output, stderr=subprocess.STDOUT)
    issuer = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while issuer not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield issuer
    finally:
        process.terminate()
        process.wait(10)


async def token_of(issuer: str) -> str:
    async with httpx.AsyncClient() as client:
        discovered = (await client.get(f"{issuer}/.well-known/openid-configuration")).json()
        form = {"grant_type": "client_credentials", "resource": AUDIENCE, "scope": "fleet.generate"}
        answer = await client.post(discovered["token_endpoint"], data=form, auth=("pipeline", "pipeline-secret"))
    return str(answer.json()["access_token"])


def verifier(issuer: str, folder: Path) -> Verifier:
    LocalIssuer.create(folder)
    rules = {
        "providers": [{"name": "company", "issuer": issuer, "audience": AUDIENCE}],
        "rules": [
            {
                "name": "shop",
                "when": {"groups": "shop-team", "scope": "fleet.generate"},
                "scopes": "generate",
                "domains": "shop",
            }
        ],
    }
    (folder / "rules.json").write_text(json.dumps(rules))
    return Verifier(str(folder / "jwks.json"), "lorafleet", skew=10, rules=read_rules(folder / "rules.json"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_providers_token_gives_the_rights_of_its_claims_also_after_its_keys_were_exchanged(
    tmp_path: Path, algorithm: str
) -> None:
    port = choose(("provider",), {})["provider"]
    with provider(port, algorithm, tmp_path) as issuer:
        verify = verifier(issuer, tmp_path).verify
        old = await token_of(issuer)
        caller = await verify(old)
        assert (caller.subject, caller.scopes, caller.domains) == ("company:pipeline", {"generate"}, {"shop"})
    with provider(port, algorithm, tmp_path) as issuer:
        new = await token_of(issuer)
        async with asyncio.timeout(30):
            while True:
                try:
                    caller = await verify(new)
                    break
                except Problem:  # keys are read again a second after the last time, and no sooner
                    await asyncio.sleep(0.2)
        assert caller.subject == "company:pipeline"
        with pytest.raises(Problem) as refused:
            await verify(f"{new[:-4]}AAAA")
        assert refused.value.status == 401
