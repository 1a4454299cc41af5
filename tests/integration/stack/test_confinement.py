"""Each key of the stack opens its own doors only. Asked of the real servers."""

from __future__ import annotations

import asyncio
import io
import stat
from pathlib import Path

import asyncpg
import nats
import nats.errors
import psutil
import pytest
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from fleet_cli.stack import Fleet
from fleet_cli.stack.credentials import KeyPair
from fleet_cli.stack.objects import BUCKET, s3_client
from fleet_cli.stack.postgres import postgres_url
from fleet_events.buckets import REPLICAS
from fleet_events.topology import STREAM

SERVICES = ("registry", "trainer", "evaluator", "router", "inference")


def refused(call: object) -> str:
    with pytest.raises(S3Error) as caught:
        call()  # type: ignore[operator]
    return str(caught.value.code)


class TestListening:
    def test_every_part_listens_on_loopback_only(self, servers: Fleet) -> None:
        addresses = set()
        for name in ("nats", "postgres", "s3"):
            pid = servers.part(name).pid
            assert pid is not None
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                addresses |= {c.laddr for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert {address.ip for address in addresses} == {"127.0.0.1"}
        assert {servers.ports[name] for name in ("nats", "postgres", "s3", "filer", "master", "volume")} <= {
            address.port for address in addresses
        }

    def test_the_home_is_closed_and_every_secret_is_readable_by_its_owner_alone(self, servers: Fleet) -> None:
        root = servers.home.root
        open_folders = [p for p in (root, *root.rglob("*")) if p.is_dir() and stat.S_IMODE(p.lstat().st_mode) & 0o077]
        assert [p for p in open_folders if p.parent == root or p == root] == []
        secret = [
            *servers.home.keys.iterdir(), *servers.home.tokens.iterdir(), *servers.home.nats.glob("*.conf"),
            *servers.home.s3.glob("*.json"), *servers.home.s3.glob("*.toml"), servers.home.fleet_file,
            *servers.home.logs.iterdir(),
        ]  # fmt: skip
        loose = [p.name for p in secret if p.name != "jwks.json" and stat.S_IMODE(p.stat().st_mode) != 0o600]
        assert loose == []

    def test_no_secret_is_seen_in_the_process_list(self, servers: Fleet) -> None:
        shown = " ".join(
            " ".join(psutil.Process(pid).cmdline())
            for name in ("nats", "postgres", "s3")
            if (pid := servers.part(name).pid) is not None
        )
        keys = servers.credentials
        for secret in (
            *keys.postgres.values(),
            *(pair.secret for pair in keys.s3.values()),
            *keys.s3_internal.values(),
        ):
            assert secret not in shown


class TestObjects:
    def put(self, servers: Fleet, who: str, key: str) -> None:
        s3_client(servers.ports["s3"], servers.credentials.s3[who]).put_object(BUCKET, key, io.BytesIO(b"mine"), 4)

    @pytest.mark.parametrize("service", SERVICES)
    def test_a_service_writes_reads_and_removes_below_its_own_prefix(self, servers: Fleet, service: str) -> None:
        client = s3_client(servers.ports["s3"], servers.credentials.s3[service])
        self.put(servers, service, f"{service}/kind/own")
        assert client.get_object(BUCKET, f"{service}/kind/own").read() == b"mine"
        client.remove_object(BUCKET, f"{service}/kind/own")
        assert refused(lambda: client.stat_object(BUCKET, f"{service}/kind/own")) == "NoSuchKey"

    @pytest.mark.parametrize("service", SERVICES)
    def test_a_service_cannot_write_or_remove_below_the_prefix_of_another(self, servers: Fleet, service: str) -> None:
        client = s3_client(servers.ports["s3"], servers.credentials.s3[service])
        for other in set(SERVICES) - {service}:
            self.put(servers, other, f"{other}/kind/theirs")
            assert refused(lambda other=other: self.put(servers, service, f"{other}/kind/theirs")) == "AccessDenied"
            assert refused(lambda other=other: client.remove_object(BUCKET, f"{other}/kind/theirs")) == "AccessDenied"
            errors = list(client.remove_objects(BUCKET, [DeleteObject(f"{other}/kind/theirs")]))
            assert [error.code for error in errors] == ["AccessDenied"]
            admin = s3_client(servers.ports["s3"], servers.credentials.s3["admin"])
            assert admin.get_object(BUCKET, f"{other}/kind/theirs").read() == b"mine"

    @pytest.mark.parametrize("name", ["loose", "trainerx/object", "trainer", "trainer_/a"])
    def test_a_name_that_only_resembles_the_prefix_is_refused(self, servers: Fleet, name: str) -> None:
        assert refused(lambda: self.put(servers, "trainer", name)) == "AccessDenied"

    def test_the_trainer_cannot_read_golden_samples(self, servers: Fleet) -> None:
        self.put(servers, "evaluator", "evaluator/golden/set")
        trainer = s3_client(servers.ports["s3"], servers.credentials.s3["trainer"])
        assert refused(lambda: trainer.get_object(BUCKET, "evaluator/golden/set")) == "AccessDenied"

    def test_the_trainer_removes_the_answers_of_forgotten_people_and_nothing_else_of_inference(
        self, servers: Fleet
    ) -> None:
        trainer = s3_client(servers.ports["s3"], servers.credentials.s3["trainer"])
        for name in ("inference/answers/one", "inference/answersx", "inference/owner"):
            self.put(servers, "inference", name)
        trainer.remove_object(BUCKET, "inference/answers/one")
        for name in ("inference/answersx", "inference/owner"):
            assert refused(lambda name=name: trainer.remove_object(BUCKET, name)) == "AccessDenied"

    @pytest.mark.parametrize("reader", ["registry", "evaluator", "inference"])
    def test_those_who_need_artifacts_read_them(self, servers: Fleet, reader: str) -> None:
        self.put(servers, "trainer", "trainer/artifacts/one")
        client = s3_client(servers.ports["s3"], servers.credentials.s3[reader])
        assert client.get_object(BUCKET, "trainer/artifacts/one").read() == b"mine"

    def test_a_wrong_secret_opens_nothing(self, servers: Fleet) -> None:
        stranger = s3_client(servers.ports["s3"], KeyPair(servers.credentials.s3["admin"].access, "guessed"))
        assert refused(lambda: list(stranger.list_objects(BUCKET))) == "SignatureDoesNotMatch"

    async def test_the_filer_behind_the_gateway_refuses_requests_without_its_key(self, servers: Fleet) -> None:
        import httpx

        self.put(servers, "evaluator", "evaluator/golden/hidden")
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{servers.ports['filer']}/buckets/{BUCKET}/evaluator/golden/hidden"
            assert (await client.get(url)).status_code == 401
            assert (await client.post(url, files={"file": b"forged"})).status_code == 401
            assert (await client.delete(url)).status_code == 401


class TestBus:
    async def denied(self, servers: Fleet, user: str, subject: str) -> bool:
        refusals: list[str] = []

        async def note(error: Exception) -> None:
            refusals.append(str(error))

        client = await servers.connect_nats(user, error_cb=note)
        try:
            await client.publish(subject, b"{}")
            await client.flush()
            await asyncio.sleep(0.1)
        finally:
            await client.close()
        return any("permissions violation" in text.lower() for text in refusals)

    @pytest.mark.parametrize(
        ("user", "subject"),
        [
            ("trainer", "lorafleet.v1.adapter.approved"),
            ("trainer", "lorafleet.v1.evaluation.scored"),
            ("evaluator", "lorafleet.v1.adapter.approved"),
            ("inference", "lorafleet.v1.adapter.activated"),
            ("router", "lorafleet.v1.training.completed"),
            ("upstream", "lorafleet.v1.adapter.approved"),
            ("upstream", "lorafleet.v1.training.completed"),
            ("registry", f"$JS.API.STREAM.DELETE.{STREAM}"),
            ("trainer", f"$JS.API.STREAM.PURGE.{STREAM}"),
            ("evaluator", f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.registry-training_completed"),
            ("router", f"$KV.{REPLICAS.name}.forged"),
            ("upstream", f"$KV.{REPLICAS.name}.forged"),
            ("inference", f"$JS.API.STREAM.PURGE.{REPLICAS.stream}"),
            ("router", f"$JS.API.CONSUMER.DELETE.{STREAM}.registry-training_completed"),
        ],
    )
    async def test_a_user_cannot_publish_what_is_not_its_own(self, servers: Fleet, user: str, subject: str) -> None:
        assert await self.denied(servers, user, subject)

    @pytest.mark.parametrize(
        ("user", "subject"),
        [("registry", "lorafleet.v1.adapter.approved"), ("upstream", "lorafleet.v1.training.requested")],
    )
    async def test_a_user_can_publish_its_own(self, servers: Fleet, user: str, subject: str) -> None:
        assert not await self.denied(servers, user, subject)

    async def test_upstream_receives_no_events(self, servers: Fleet) -> None:
        refusals: list[str] = []

        async def note(error: Exception) -> None:
            refusals.append(str(error))

        client = await servers.connect_nats("upstream", error_cb=note)
        heard = await client.subscribe("lorafleet.v1.>")
        await client.flush()
        admin = await servers.connect_nats("admin")
        await admin.publish("lorafleet.v1.adapter.approved", b"{}")
        await admin.flush()
        with pytest.raises(nats.errors.TimeoutError):
            await heard.next_msg(timeout=0.3)
        assert any("permissions violation" in text.lower() for text in refusals)
        await client.close()
        await admin.close()

    async def test_no_connection_without_a_key(self, servers: Fleet) -> None:
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await nats.connect(servers.info.nats_url, max_reconnect_attempts=0, allow_reconnect=False)


class TestDatabase:
    async def connect(self, servers: Fleet, role: str) -> asyncpg.Connection:
        password = servers.credentials.postgres[role]
        return await asyncpg.connect(postgres_url(role, password, servers.ports["postgres"]))

    @pytest.mark.parametrize("role", ["registry", "trainer", "evaluator", "router"])
    async def test_a_role_works_in_its_own_schema_with_vectors(self, servers: Fleet, role: str) -> None:
        connection = await self.connect(servers, role)
        try:
            assert await connection.fetchval("SELECT current_schema()") == role
            assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
            await connection.execute("CREATE TABLE own_vectors (at vector(3))")
            await connection.execute("INSERT INTO own_vectors VALUES ('[1,2,3]')")
            assert await connection.fetchval("SELECT at <-> '[1,2,5]' FROM own_vectors") == 2.0
            await connection.execute("DROP TABLE own_vectors")
        finally:
            await connection.close()

    async def test_a_role_can_neither_read_nor_write_the_schema_of_another(self, servers: Fleet) -> None:
        connection = await self.connect(servers, "trainer")
        try:
            for statement in (
                "SELECT * FROM registry.outbox",
                "DELETE FROM registry.inbox",
                "CREATE TABLE registry.planted (x int)",
                "CREATE TABLE public.planted (x int)",
                "SET ROLE registry",
                "CREATE SCHEMA more",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()

    async def test_a_wrong_or_missing_password_is_refused(self, servers: Fleet) -> None:
        for password in ("guessed", ""):
            with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InternalClientError)):
                await asyncpg.connect(postgres_url("postgres", password, servers.ports["postgres"]))

    def test_the_server_does_not_run_as_root(self, servers: Fleet) -> None:
        pid = servers.part("postgres").pid
        assert pid is not None
        assert psutil.Process(pid).uids().effective != 0
        assert Path(servers.home.postgres).stat().st_uid == psutil.Process(pid).uids().effective
