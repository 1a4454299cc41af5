"""All services on the three servers, as `lorafleet up` starts them."""

from __future__ import annotations

import json
import signal
import stat

import httpx
import psutil
import pytest

from fleet_cli.stack import Fleet
from fleet_events.topology import SERVICES


def test_every_service_is_ready_and_has_not_crashed_on_the_way(fleet: Fleet) -> None:
    fleet.wait_ready(10)
    # Other tests of this run may have killed a service of this fleet; none may have ended by itself.
    assert {status for name in SERVICES for status in fleet.part(name).exits} <= {-signal.SIGKILL}
    assert set(fleet.timings) >= {*SERVICES, "nats", "postgres", "s3", "all"}


def test_no_service_listens_beyond_loopback(fleet: Fleet) -> None:
    for name in SERVICES:
        pid = fleet.part(name).pid
        assert pid is not None
        listening = [c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [(a.ip, a.port) for a in listening] == [("127.0.0.1", fleet.ports[name])]


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_asks_for_a_token_and_takes_the_one_of_admin(fleet: Fleet, name: str) -> None:
    async with httpx.AsyncClient(base_url=fleet.info.services[name].url) as client:
        assert (await client.get("/admin/info")).status_code == 401
        forged = {"Authorization": "Bearer " + fleet.info.token("admin")[:-8] + "AAAAAAAA"}
        assert (await client.get("/admin/info", headers=forged)).status_code == 401
        upstream = {"Authorization": f"Bearer {fleet.info.token('upstream')}"}
        assert (await client.get("/admin/info", headers=upstream)).status_code == 403
        admin = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
        answer = await client.get("/admin/info", headers=admin)
    assert answer.status_code == 200
    for secret in (*fleet.credentials.postgres.values(), *(pair.secret for pair in fleet.credentials.s3.values())):
        assert secret not in answer.text


def test_the_fleet_file_names_base_model_and_services(fleet: Fleet) -> None:
    content = json.loads(fleet.home.fleet_file.read_text())
    assert stat.S_IMODE(fleet.home.fleet_file.stat().st_mode) == 0o600
    assert set(content["services"]) == set(SERVICES)
    assert content["base_model"]["name"] == "SmolLM2-135M-Instruct"
    assert len(content["base_model"]["revision"]) == 64
    for name, service in content["services"].items():
        assert service["url"].endswith(service["env"]["LORAFLEET_PORT"]), name
    assert "LORAFLEET_DATABASE_URL" not in content["services"]["inference"]["env"]
