"""Faults of the surroundings are waited out, faults that an event brings with it are not."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import nats.errors
import nats.js.errors
import pytest
from fastapi import APIRouter
from minio.error import S3Error
from nats.js import JetStreamContext

from fleet_events import v1
from fleet_events.topology import row_of
from fleet_kit.caller import Caller
from fleet_kit.dead_letters import list_dead
from fleet_kit.faults import is_deterministic, is_transient
from fleet_kit.handlers import Handlers
from fleet_kit.service import create_app
from fleet_kit.transaction import Transaction

pytestmark = pytest.mark.integration

PASSING = {
    "connection_exception": "08000",
    "connection_failure": "08006",
    "protocol_violation": "08P01",
    "read_only_sql_transaction": "25006",
    "idle_in_transaction_session_timeout": "25P03",
    "transaction_timeout": "25P04",
    "invalid_authorization_specification": "28000",
    "invalid_password": "28P01",
    "invalid_catalog_name": "3D000",
    "transaction_rollback": "40000",
    "serialization_failure": "40001",
    "statement_completion_unknown": "40003",
    "deadlock_detected": "40P01",
    "insufficient_resources": "53000",
    "disk_full": "53100",
    "out_of_memory": "53200",
    "too_many_connections": "53300",
    "configuration_limit_exceeded": "53400",
    "object_in_use": "55006",
    "lock_not_available": "55P03",
    "operator_intervention": "57000",
    "query_canceled": "57014",
    "admin_shutdown": "57P01",
    "crash_shutdown": "57P02",
    "cannot_connect_now": "57P03",
    "idle_session_timeout": "57P05",
    "system_error": "58000",
    "io_error": "58030",
    "snapshot_too_old": "72000",
    "data_corrupted": "XX001",
    "index_corrupted": "XX002",
    "a state of tomorrow": "53999",
}
BY_THE_EVENT = {
    "string_data_right_truncation": "22001",
    "numeric_value_out_of_range": "22003",
    "character_not_in_repertoire": "22021",
    "untranslatable_character": "22P05",
    "program_limit_exceeded": "54000",
}
UNEXPECTED = {"unique_violation": "23505", "undefined_table": "42P01", "internal_error": "XX000"}


async def raised(connection: Any, state: str) -> BaseException:
    """The driver's exception for an error that the server raises with this SQLSTATE."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await connection.execute(f"do $$ begin raise exception 'made for a test' using errcode = '{state}'; end $$")
    assert caught.value.sqlstate == state
    return caught.value


@pytest.fixture
async def connection(settings_of: Callable[..., Any]) -> Any:
    connection = await asyncpg.connect(settings_of("registry").database_url)
    yield connection
    connection.terminate()


@pytest.mark.parametrize("state", PASSING.values(), ids=PASSING)
async def test_a_fault_of_the_database_passes(connection: Any, state: str) -> None:
    error = await raised(connection, state)
    assert is_transient(error)
    assert not is_deterministic(error)


@pytest.mark.parametrize("state", BY_THE_EVENT.values(), ids=BY_THE_EVENT)
async def test_a_value_that_the_database_cannot_hold_is_the_events_fault(connection: Any, state: str) -> None:
    error = await raised(connection, state)
    assert is_deterministic(error)
    assert not is_transient(error)


@pytest.mark.parametrize("state", UNEXPECTED.values(), ids=UNEXPECTED)
async def test_other_faults_of_the_database_are_neither(connection: Any, state: str) -> None:
    error = await raised(connection, state)
    assert not is_deterministic(error)
    assert not is_transient(error)


async def _of(statement: str, connection: Any, *arguments: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the server and its driver make of it
        await connection.execute(statement, *arguments)
    return caught.value


async def test_time_limits_locks_and_closed_connections_pass(connection: Any, settings_of: Callable[..., Any]) -> None:
    url = settings_of("registry").database_url
    other = await asyncpg.connect(url)
    await connection.execute("set statement_timeout = '50ms'")
    assert is_transient(await _of("select pg_sleep(5)", connection))
    await connection.execute("set statement_timeout = 0; set lock_timeout = '50ms'; create table locked_row (n int)")
    async with other.transaction():
        await other.execute("lock table locked_row")
        assert is_transient(await _of("insert into locked_row values (1)", connection))
        assert is_transient(await _of("begin; lock table locked_row nowait", connection))
    await connection.execute("rollback; set default_transaction_read_only = on")
    assert is_transient(await _of("insert into locked_row values (1)", connection))
    await connection.execute("set default_transaction_read_only = off")
    with pytest.raises(TimeoutError) as slow:
        await connection.execute("select pg_sleep(5)", timeout=0.05)
    assert is_transient(slow.value)
    assert is_deterministic(await _of("select $1::text", connection, "a\x00b"))
    assert is_deterministic(await _of("select $1::int", connection, 2**40))
    await other.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1", connection.get_server_pid()
    )
    while await other.fetchval("select true from pg_stat_activity where pid = $1", connection.get_server_pid()):
        await asyncio.sleep(0.01)
    assert is_transient(await _of("select 1", connection))
    assert is_transient(await _of("select 1", connection))  # the driver knows by now that it is closed
    await other.execute("drop table locked_row")
    await other.close()
    pool = await asyncpg.create_pool(url, min_size=0)
    pool.terminate()
    with pytest.raises(asyncpg.InterfaceError) as closed:
        await pool.acquire()
    assert is_transient(closed.value)
    with pytest.raises(ConnectionRefusedError) as gone:
        await asyncpg.connect("postgres://nobody:none@127.0.0.1:1/none")
    assert is_transient(gone.value)


def _s3(code: str) -> S3Error:
    return S3Error(response=None, code=code, message="", resource="", request_id="", host_id="")  # type: ignore[arg-type]


def _status(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        *((_s3(code), True) for code in ("InternalError", "SlowDown", "ServiceUnavailable", "XMinioStorageFull")),
        *((_s3(code), True) for code in ("RequestTimeout", "AccessDenied", "NoSuchBucket", "InvalidAccessKeyId")),
        *((_s3(code), False) for code in ("NoSuchKey", "EntityTooLarge", "KeyTooLongError", "InvalidArgument")),
        *(
            (OSError(number, os.strerror(number)), True)
            for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO)
        ),
        *((OSError(number, os.strerror(number)), False) for number in (errno.ENOENT, errno.ENAMETOOLONG, errno.EISDIR)),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (nats.errors.NoRespondersError(), True),
        (nats.errors.TimeoutError(), True),
        (nats.js.errors.ServiceUnavailableError(code=503, err_code=10023, description="insufficient resources"), True),
        (nats.js.errors.NotFoundError(code=404, err_code=10059, description="stream not found"), False),
        (nats.errors.MaxPayloadError(), False),
        (httpx.ConnectError("refused"), True),
        (httpx.UnsupportedProtocol("ftp"), False),
        (_status(503), True),
        (_status(429), True),
        (_status(404), False),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("pool is closing"), True),
        (asyncpg.InterfaceError("cannot call Connection.fetch(): connection has been released back to the pool"), True),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), True),
        (asyncpg.InternalClientError("got result for unknown protocol state 3"), True),
        (asyncpg.TargetServerAttributeNotMatched("none of the hosts match the target attribute requirement"), True),
        (asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed"), False),
        (ExceptionGroup("several", [ValueError(), ConnectionResetError()]), True),
        (RuntimeError(), False),
        (MemoryError(), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_faults_of_stores_bus_disk_and_network(error: BaseException, passes: bool) -> None:
    assert is_transient(error) is passes


@pytest.mark.parametrize(
    "error", [ValueError(), TypeError(), KeyError(), IndexError(), UnicodeError(), OverflowError(), RecursionError()]
)
def test_faults_of_content_are_the_events(error: Exception) -> None:
    assert is_deterministic(error)
    assert not is_deterministic(RuntimeError())


@pytest.mark.heavy
async def test_twenty_events_wait_as_long_as_the_database_is_read_only(
    run_kit, settings_of: Callable[..., Any], jetstream: JetStreamContext, eventually
) -> None:
    handlers: Handlers[Any] = Handlers("registry")
    tried: list[str] = []
    done: set[str] = set()

    @handlers.on(v1.FeedbackRecorded)
    async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: Any) -> None:
        tried.append(event.generation_id)
        await tx.connection.execute("insert into probe (written_at) values (now()) on conflict (id) do nothing")
        done.add(event.generation_id)

    admin = await asyncpg.connect(settings_of("registry").database_url)
    database = await admin.fetchval("select current_database()")
    await admin.execute(f'alter role current_user in database "{database}" set default_transaction_read_only = on')
    try:
        async with run_kit(handlers):
            for number in range(20):
                body = v1.FeedbackRecorded(generation_id=f"w-{number}", rating=5).to_json()
                await jetstream.publish("lorafleet.v1.data.feedback_recorded", body, headers={"ce-id": f"w-{number}"})
            consumer = "registry-data_feedback_recorded"

            async def often_redelivered() -> bool:
                info = await jetstream.consumer_info(row_of(v1.FeedbackRecorded).stream.name, consumer)
                return info.delivered is not None and info.delivered.consumer_seq >= 20 * 5

            await eventually(often_redelivered, 60)
            assert [letter async for letter in list_dead(jetstream)] == []
            await admin.execute("set default_transaction_read_only = off")
            await admin.execute(f'alter role current_user in database "{database}" reset default_transaction_read_only')
            await eventually(lambda: len(done) == 20, 40)
            assert [letter async for letter in list_dead(jetstream)] == []
    finally:
        await admin.execute("set default_transaction_read_only = off")
        await admin.execute(f'alter role current_user in database "{database}" reset default_transaction_read_only')
        await admin.close()


class _Anyone:
    """Takes every request for an operator's: faults are what is tested here."""

    async def caller_of(self, _authorization: str | None, _act_for: str | None = None) -> Caller:
        return Caller("tests", frozenset({"admin"}), frozenset({"*"}))


async def test_over_http_what_passes_is_503_with_retry_after_and_a_defect_is_not(
    settings_of: Callable[..., Any], connection: Any
) -> None:
    faults: dict[str, BaseException] = {
        "disk": OSError(errno.ENOSPC, "No space left on device"),
        "store": _s3("InternalError"),
        "unknown": await raised(connection, "53999"),
        "defect": asyncpg.UndefinedTableError("relation x does not exist"),
        "content": _s3("NoSuchKey"),
    }
    api = APIRouter()

    @api.get("/fail/{name}")
    async def fail(name: str) -> None:
        raise faults[name]

    app = create_app("registry", settings_of("registry"), api=api)
    async with app.router.lifespan_context(app):
        app.state.verifier = _Anyone()
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://kit") as client:
            for name in ("disk", "store", "unknown"):
                answer = await client.get(f"/fail/{name}")
                assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "2"), name
                assert json.loads(answer.content)["status"] == 503
            for name in ("defect", "content"):
                assert (await client.get(f"/fail/{name}")).status_code == 500, name
