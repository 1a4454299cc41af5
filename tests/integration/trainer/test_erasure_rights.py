"""Who may have a person forgotten, and which service may delete messages for it."""

from __future__ import annotations

import secrets

import httpx
import pytest

from fleet_events.topology import ANSWERS, DATA, DEAD_STREAM
from fleet_kit.nats_auth import USERS, permissions
from tests.conftest import Mint
from tests.integration.trainer.conftest import Bench

pytestmark = pytest.mark.integration


async def test_only_an_admin_of_the_domain_forgets_and_a_domain_has_to_be_named_by_one_of_few(
    bench: Bench, mint: Mint
) -> None:
    for scopes, domains, domain, status in (
        (["train"], ["*"], bench.domain, 403),
        (["admin"], ["another"], bench.domain, 403),
        (["admin"], [bench.domain], "*", 403),
        (["admin"], [bench.domain], bench.domain, 202),
    ):
        headers = {"Authorization": f"Bearer {mint(scopes, domains)}"}
        async with httpx.AsyncClient(base_url=bench.trainer.url, headers=headers) as client:
            reply = await client.post(
                "/v1/erasures", json={"subject": f"person-{secrets.token_hex(6)}", "domain": domain}
            )
            assert reply.status_code == status, reply.text
            if status == 202:
                assert len((await client.get("/v1/erasures")).json()["erasures"]) == 1


def test_only_the_trainer_may_delete_messages_and_only_where_people_wrote() -> None:
    may = {
        user: [one for one in permissions(user)["publish"]["allow"] if "MSG.DELETE" in one]
        for user in USERS
        if user != "admin"
    }
    assert may.pop("trainer") == [
        f"$JS.API.STREAM.MSG.DELETE.{name}" for name in (DATA.name, ANSWERS.name, DEAD_STREAM)
    ]
    assert not any(may.values())
