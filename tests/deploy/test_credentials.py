"""What `lorafleet credentials` writes opens the real servers, in the way that the deployments set them up."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import asyncpg
import nats
import pytest

from fleet_cli.stack.credentials import Credentials
from fleet_cli.stack.home import Home
from fleet_cli.stack.objects import BUCKET, DELETES, READS
from fleet_cli.stack.ports import choose
from fleet_events.topology import KEEPING_OBJECTS, STORING, STREAM

FILES = ("k8s", "components", "servers")


def test_everything_written_is_closed_to_others(deployment_home: Path) -> None:
    written = list((deployment_home / "deploy").rglob("*"))
    assert len(written) > 20
    for path in written:
        assert path.stat().st_mode & 0o077 == 0, path


def test_writing_again_changes_no_credential(deployment_home: Path, tools: Any) -> None:
    before = {path: path.read_text() for path in (deployment_home / "deploy").rglob("*") if path.is_file()}
    done = tools.run(tools.program("lorafleet"), "credentials", "write", "--home", deployment_home)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_text() for path in before} == before


def test_the_home_of_a_local_stack_is_refused(tmp_path: Path, tools: Any) -> None:
    Home.open(tmp_path).fleet_file.write_text('{"pid": 1}')
    done = tools.run(tools.program("lorafleet"), "credentials", "write", "--home", tmp_path)
    assert done.returncode == 2
    assert "belongs to a local stack" in done.stderr
    assert not (tmp_path / "deploy").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"stranger": "UABC"}'])
def test_a_broken_list_of_bus_users_is_refused_in_one_line(tmp_path: Path, tools: Any, content: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(content)
    done = tools.run(tools.program("lorafleet"), "credentials", "nats-config", path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: USERS: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("service", KEEPING_OBJECTS)
def test_the_policies_of_the_bucket_are_those_of_the_local_stack(service: str, tools: Any) -> None:
    policy = json.loads(tools.root.joinpath(*FILES, "s3", f"{service}.json").read_text())
    allowed = {statement["Sid"]: set(statement["Resource"]) for statement in policy["Statement"]}
    bucket = f"arn:aws:s3:::{BUCKET}"
    deletes = {f"{bucket}/{prefix}/*" for prefix in DELETES.get(service, ())}
    assert allowed == {
        "NamesOnly": {bucket},
        "Read": {f"{bucket}/{prefix}/*" for prefix in (service, *READS[service])},
        "WriteOwn": {f"{bucket}/{service}/*"},
    } | ({"DeleteAnswers": deletes} if deletes else {})
    actions = {action for one in policy["Statement"] if one["Sid"] == "DeleteAnswers" for action in one["Action"]}
    assert actions <= {"s3:DeleteObject"}
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}


def test_the_bucket_script_makes_a_user_for_every_service_from_what_is_written(
    deployment_home: Path, tools: Any
) -> None:
    """Run with a recorder in the place of `mc`, which no package brings."""
    folder = deployment_home.parent / "recorder"
    folder.mkdir()
    recorder = folder / "mc"
    recorder.write_text('#!/bin/sh\necho "$@" >> "$RECORD"\n')
    recorder.chmod(0o755)
    written = (deployment_home / "deploy" / "s3" / "s3.env").read_text()
    environment = dict(line.split("=", 1) for line in written.splitlines())
    record = folder / "record"
    done = tools.run(
        "/bin/sh", tools.root.joinpath(*FILES, "s3", "bucket.sh"),
        env={**environment, "RECORD": str(record), "PATH": f"{folder}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = record.read_text().splitlines()
    assert calls[0] == "mb --ignore-existing fleet/lorafleet"
    assert not any("console" in call for call in calls)
    for service in KEEPING_OBJECTS:
        key, secret = (environment[f"{service.upper()}_{kind}_KEY"] for kind in ("ACCESS", "SECRET"))
        assert f"admin policy create fleet lorafleet-{service} /policies/{service}.json" in calls
        assert f"admin user add fleet {key} {secret}" in calls
        assert f"admin policy attach fleet lorafleet-{service} --user {key}" in calls
        assert f"pipe fleet/lorafleet/{service}/ready" in calls


@pytest.mark.integration
async def test_the_deployed_configuration_of_nats_lets_a_service_in_and_keeps_it_to_its_own(
    deployment_home: Path, credentials: Credentials, tools: Any, tmp_path: Path
) -> None:
    deploy = deployment_home / "deploy"
    folder = tmp_path / "nats"
    (folder / "accounts").mkdir(parents=True)
    config = (tools.root.joinpath(*FILES, "nats", "server.conf")).read_text()
    ports = choose(("nats", "monitor"), {})
    for here, there in (
        ("port: 4222", f'listen: "127.0.0.1:{ports["nats"]}"'),
        ("http_port: 8222", f'http: "127.0.0.1:{ports["monitor"]}"'),
        ("/data", f'"{folder / "data"}"'),
    ):
        assert here in config
        config = config.replace(here, there)
    (folder / "server.conf").write_text(config)
    lorafleet = tools.program("lorafleet")
    accounts = folder / "accounts" / "accounts.conf"
    done = tools.run(lorafleet, "credentials", "nats-config", deploy / "nats" / "users.json", "--output", accounts)
    assert done.returncode == 0, done.stderr
    server = await asyncio.create_subprocess_exec(
        tools.program("nats-server"), "--config", str(folder / "server.conf"),
        env={"HOSTNAME": "nats"}, stdout=asyncio.subprocess.DEVNULL, stderr=(folder / "log").open("w"),
    )  # fmt: skip
    try:
        await asyncio.to_thread(_wait_for, ports["nats"], folder / "log")
        url = f"nats://127.0.0.1:{ports['nats']}"
        home = shutil.copytree(deploy / "provision", tmp_path / "provision")
        made = tools.run(
            lorafleet, "provision", "--no-migrations", "--home", home,
            env={"LORAFLEET_NATS_URL": url, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        refusals: list[str] = []

        async def refused(error: Exception) -> None:
            refusals.append(str(error))

        client = await nats.connect(
            url,
            nkeys_seed=str(deploy / "registry" / "files" / "nats.nk"),
            inbox_prefix=b"_INBOX_registry",
            error_cb=refused,
            allow_reconnect=False,
        )
        try:
            assert (await client.jetstream().stream_info(STREAM)).config.name == STREAM
            await client.publish("lorafleet.v1.training.completed", b"{}")
            await client.flush()
            await asyncio.sleep(0.2)
            assert any("permissions violation" in reason.lower() for reason in refusals)
        finally:
            await client.close()
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)


def _wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.mark.integration
async def test_the_roles_let_a_service_migrate_and_use_its_own_schema_and_no_other(
    deployment_home: Path, empty_postgres: tuple[int, str], tools: Any, tmp_path: Path
) -> None:
    from fleet_cli.stack.programs import postgres_bin
    from fleet_kit.migrate import migrate

    port, admin = empty_postgres
    written = (deployment_home / "deploy" / "postgres" / "postgres.env").read_text()
    environment = dict(line.split("=", 1) for line in written.splitlines()) | {"PGPASSWORD": admin}
    roles = tools.root.joinpath(*FILES, "postgres", "roles.sql")
    for _ in range(2):  # a second run changes nothing and does not fail
        done = tools.run(
            postgres_bin() / "psql", "--host=127.0.0.1", f"--port={port}", "--username=postgres",
            "--dbname=postgres", f"--file={roles}", env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    for service in STORING:
        url = _database_url(deployment_home, service).replace("@postgres:5432/", f"@127.0.0.1:{port}/")
        await asyncio.to_thread(migrate, service, url)
        connection = await asyncpg.connect(url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", service)
            assert "outbox" in {row["tablename"] for row in tables}
            assert await connection.fetchval("SELECT '[1,2]'::vector <-> '[1,2]'::vector") == 0
            other = next(name for name in STORING if name != service)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"CREATE TABLE {other}.intruder ()")
        finally:
            await connection.close()


def _database_url(home: Path, service: str) -> str:
    lines = (home / "deploy" / service / "service.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)["LORAFLEET_DATABASE_URL"]


def test_a_removed_credential_is_recreated_and_the_others_are_kept(deployment_home: Path, tools: Any) -> None:
    before = {path: path.read_text() for path in (deployment_home / "deploy").rglob("*") if path.is_file()}
    (deployment_home / "keys" / "nats-router.nk").unlink()
    secrets_file = deployment_home / "keys" / "secrets.json"
    kept = json.loads(secrets_file.read_text())
    del kept["postgres"]["trainer"]
    secrets_file.write_text(json.dumps(kept))
    done = tools.run(tools.program("lorafleet"), "credentials", "write", "--home", deployment_home)
    assert done.returncode == 0, done.stderr
    changed = {str(path.relative_to(deployment_home / "deploy")) for path in before if path.read_text() != before[path]}
    assert changed == {
        "router/files/nats.nk", "nats/users.json",
        "trainer/service.env", "postgres/postgres.env", "provision/fleet.json",
        "secrets.json",
    }  # fmt: skip
