"""The stack's life: first start, second start, crashes of parts, crash of the whole, orderly end."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from fleet_cli.stack import SERVERS, AlreadyRunning, Fleet, PartFailed, StackError
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_cli.stack.postgres import postgres_url
from fleet_cli.stack.process import started_at

EVENT = "lorafleet.v1.training.started"


async def leave_a_trace(stack: Fleet) -> None:
    """One row, one object, one event."""
    keys = stack.credentials
    connection = await asyncpg.connect(postgres_url("registry", keys.postgres["registry"], stack.ports["postgres"]))
    await connection.execute("CREATE TABLE trace AS SELECT 'row' AS kept")
    await connection.close()
    s3 = s3_client(stack.ports["s3"], keys.s3["trainer"])
    await asyncio.to_thread(s3.put_object, BUCKET, "trainer/trace", io.BytesIO(b"object"), 6)
    client = await stack.connect_nats("admin")
    await client.jetstream().publish(EVENT, b"event")
    await client.close()


async def find_the_trace(stack: Fleet) -> tuple[str, bytes, bytes]:
    keys = stack.credentials
    connection = await asyncpg.connect(postgres_url("registry", keys.postgres["registry"], stack.ports["postgres"]))
    row = str(await connection.fetchval("SELECT kept FROM trace"))
    await connection.close()
    s3 = s3_client(stack.ports["s3"], keys.s3["trainer"])
    stored = bytes((await asyncio.to_thread(s3.get_object, BUCKET, "trainer/trace")).read())
    client = await stack.connect_nats("admin")
    message = await client.jetstream().get_last_msg("LORAFLEET", EVENT)
    await client.close()
    return row, stored, message.data or b""


TRACE = ("row", b"object", b"event")


def secrets_of(home: Path) -> dict[str, bytes]:
    files = (*(home / "keys").iterdir(), *(home / "tokens").iterdir())
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


@pytest.mark.heavy
async def test_a_second_start_finds_keys_addresses_and_data_of_the_first(fresh_home: Path) -> None:
    with Fleet(fresh_home) as first:
        await asyncio.to_thread(first.start, [])
        await leave_a_trace(first)
        ports, keys = first.ports, secrets_of(fresh_home)
    with Fleet(fresh_home) as second:
        await asyncio.to_thread(second.start, [])
        assert await find_the_trace(second) == TRACE
        assert (second.ports, secrets_of(fresh_home)) == (ports, keys)


@pytest.mark.heavy
async def test_two_homes_share_no_secret_and_no_port(servers: Fleet, fresh_home: Path) -> None:
    with Fleet(fresh_home) as other:
        await asyncio.to_thread(other.start, [])
        mine, theirs = servers.credentials, other.credentials
        assert not set(mine.postgres.values()) & set(theirs.postgres.values())
        assert not {pair.secret for pair in mine.s3.values()} & {pair.secret for pair in theirs.s3.values()}
        assert not set(mine.nats_public.values()) & set(theirs.nats_public.values())
        assert not set(servers.ports.values()) & set(other.ports.values())


def test_a_home_has_one_stack_at_a_time_and_the_message_names_its_process(servers: Fleet) -> None:
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        Fleet(servers.home.root).start([])
    assert psutil.pid_exists(servers.part("nats").pid or 0)


def test_an_unknown_service_is_refused_before_anything_starts(fresh_home: Path) -> None:
    with pytest.raises(StackError, match="unknown service 'oracle'; known are registry"):
        Fleet(fresh_home).start(["oracle"])
    assert not fresh_home.exists()


def test_the_fleet_file_says_how_to_reach_everything(servers: Fleet) -> None:
    content = json.loads(servers.home.fleet_file.read_text())
    assert content["nats_url"] == f"nats://127.0.0.1:{servers.ports['nats']}"
    assert content["s3_bucket"] == "lorafleet"
    assert set(content["tokens"]) == {"admin", "upstream", "registry", "trainer", "evaluator", "router", "inference"}
    assert Path(content["tokens"]["admin"]).read_text() == servers.info.token("admin")
    assert Path(content["embedding_model"], "modules.json").is_file()


@pytest.fixture(scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Servers of their own, with something stored in each."""
    with Fleet(tmp_path_factory.mktemp("traced") / "home") as stack:
        await asyncio.to_thread(stack.start, [])
        await leave_a_trace(stack)
        yield stack


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_that_is_killed_comes_back_with_its_data(traced: Fleet, name: str) -> None:
    before = traced.kill(name)
    await asyncio.to_thread(wait_for_another, traced, name, before)
    await asyncio.to_thread(traced.wait_ready, 60)
    await eventually_finds_the_trace(traced)


def wait_for_another(stack: Fleet, name: str, before: int) -> None:
    deadline = time.monotonic() + 20
    while stack.part(name).pid in (None, before):
        assert time.monotonic() < deadline, f"{name} was not started again"
        time.sleep(0.02)


async def eventually_finds_the_trace(stack: Fleet) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert await find_the_trace(stack) == TRACE
            return
        except Exception:  # a store that has just come back may answer 5xx for a moment
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_stopped_server_stays_down_until_started_and_has_the_same_address(servers: Fleet, name: str) -> None:
    servers.stop_part(name)
    try:
        with pytest.raises(OSError):  # noqa: PT011 - refused, whatever the system calls it
            await asyncio.open_connection("127.0.0.1", servers.ports[name])
        await asyncio.sleep(0.6)
        assert servers.part(name).pid is None
    finally:
        await asyncio.to_thread(servers.start_part, name)
    _, writer = await asyncio.open_connection("127.0.0.1", servers.ports[name])
    writer.close()


PROGRAM = """
import sys
from pathlib import Path
from fleet_cli.stack import Fleet
stack = Fleet(Path(sys.argv[1]))
def ready(info):
    print(*[stack.part(name).pid for name in ("nats", "postgres", "s3", "registry")], flush=True)
stack.serve(["registry"], ready=ready)
print("stopped", flush=True)
"""


def start_program(home: Path) -> tuple[subprocess.Popen[str], dict[int, float]]:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(home)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    pids = [int(word) for word in program.stdout.readline().split()]
    assert len(pids) == 4
    return program, {pid: started_at(pid) for pid in pids}


def wait_until_gone(processes: dict[int, float], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid, started in processes.items() if started_at(pid) == started]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


@pytest.mark.usefixtures("base_model")
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.heavy), signal.SIGTERM])
def test_one_signal_stops_everything_in_order(fresh_home: Path, number: signal.Signals) -> None:
    program, parts = start_program(fresh_home)
    program.send_signal(number)
    out, _ = program.communicate(timeout=30)
    assert (program.returncode, out) == (0, "stopped\n")
    assert [pid for pid, started in parts.items() if started_at(pid) == started] == []
    log = (fresh_home / "logs" / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "database system is shut down" in log


@pytest.mark.heavy
def test_a_signal_during_the_start_stops_what_has_been_started(fresh_home: Path) -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(fresh_home)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not (fresh_home / "run" / "postgres.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(signal.SIGTERM)
    out, _ = program.communicate(timeout=30)
    assert (program.returncode, out) == (0, "stopped\n")
    assert list((fresh_home / "run").iterdir()) == []


@pytest.mark.usefixtures("base_model")
async def test_a_stack_killed_with_9_leaves_nothing_running_and_starts_again_with_its_data(fresh_home: Path) -> None:
    with Fleet(fresh_home) as first:
        await asyncio.to_thread(first.start, [])
        await leave_a_trace(first)
    program, parts = await asyncio.to_thread(start_program, fresh_home)
    program.kill()
    program.communicate()
    await asyncio.to_thread(wait_until_gone, parts, 10)
    assert sorted(path.stem for path in (fresh_home / "run").iterdir()) == ["nats", "postgres", "registry", "s3"]
    with Fleet(fresh_home) as again:
        await asyncio.to_thread(again.start, ["registry"])
        await eventually_finds_the_trace(again)


@pytest.mark.usefixtures("base_model")
async def test_a_service_killed_with_9_is_started_again_and_answers(fresh_home: Path) -> None:
    with Fleet(fresh_home) as stack:
        info = await asyncio.to_thread(stack.start, ["registry"])
        before = stack.kill("registry")
        await asyncio.to_thread(wait_for_another, stack, "registry", before)
        await asyncio.to_thread(stack.wait_ready, 60)
        assert stack.part("registry").exits == [-signal.SIGKILL]
        headers = {"Authorization": f"Bearer {info.token('admin')}"}
        async with httpx.AsyncClient(headers=headers) as client:
            answer = await client.get(f"{info.services['registry'].url}/v1/adapters")
        assert answer.status_code == 200


@pytest.mark.usefixtures("base_model")
def test_a_service_that_cannot_start_ends_the_start_with_the_end_of_its_log(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFLEET_DATABASE_POOL", "seven")
    stack = Fleet(fresh_home)
    with pytest.raises(PartFailed, match=r"(?s)registry crashed 3 times.*database_pool"):
        stack.start(["registry"])
    assert list((fresh_home / "run").iterdir()) == []
    with pytest.raises(StackError, match="unknown part 'nats'; no part is running"):
        stack.part("nats")
