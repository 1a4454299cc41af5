"""What kind of fault an exception is: one that passes, one that the event brings with it, or a defect.

A fault that passes belongs to the surroundings (database, bus, object store, disk, network): the event waits for as
long as it lasts. A fault that the event brings with it is the same at every try: the event becomes a dead letter at
once. Everything else is tried a few times. PostgreSQL's errors are distinguished by SQLSTATE class
(https://www.postgresql.org/docs/current/errcodes-appendix.html).
"""

import errno

import asyncpg
import httpx
import nats.errors
import nats.js.errors
import urllib3.exceptions
from minio.error import InvalidResponseError, S3Error, ServerError

__all__ = ["TRANSIENT", "describe", "is_deterministic", "is_transient"]

TRANSIENT: tuple[type[Exception], ...] = (
    OSError,  # with TimeoutError and socket.gaierror
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ObjectInUseError,
    asyncpg.LockNotAvailableError,
    asyncpg.SnapshotTooOldError,
    asyncpg.DataCorruptedError,
    asyncpg.IndexCorruptedError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    httpx.TransportError,
    urllib3.exceptions.HTTPError,
    S3Error,
    ServerError,
    InvalidResponseError,
    nats.errors.Error,
)
"""Classes of faults that pass, for an `except`; a few of their members do not, and `is_transient` recognises those."""

_POSTGRES_CLASSES = frozenset({"08", "28", "3D", "40", "53", "57", "58", "72"})
"""Connection, authorisation at connecting, missing database, rollback by the server (serialisation, deadlock), lack of
resources (disk, memory, connections), operator (shutdown, cancelled statement), system (input and output), a snapshot
that is too old (PostgreSQL 16)."""
_POSTGRES_STATES = frozenset({"25006", "25P03", "25P04", "55006", "55P03", "XX001", "XX002"})
"""Read-only transaction, idle and transaction time limits, object in use, lock not available, damaged data."""
_EVENT_STATES = frozenset({"22", "54"})
"""Data exception (a character or number that a column cannot hold), a limit of the server (an index row too large)."""

_NAMED_WRONGLY = frozenset(
    {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP}
)
"""Errors about a name or an argument: no waiting changes those."""

_S3_REFUSALS = frozenset(
    {
        "BadDigest",
        "EntityTooLarge",
        "EntityTooSmall",
        "InvalidArgument",
        "InvalidDigest",
        "InvalidObjectName",
        "InvalidRange",
        "InvalidRequest",
        "KeyTooLongError",
        "MethodNotAllowed",
        "NoSuchKey",
        "NoSuchObject",
        "XMinioInvalidObjectName",
    }
)
"""What an object store answers to the request itself. Any other answer passes, or an operator mends it (5xx, SlowDown,
a full disk, a missing right or bucket)."""

_NATS_REFUSALS: tuple[type[BaseException], ...] = (
    nats.errors.MaxPayloadError,
    nats.errors.BadSubjectError,
    nats.errors.BadHeaderError,
    nats.js.errors.NotFoundError,
    nats.js.errors.BadRequestError,
)

_BY_THE_EVENT: tuple[type[BaseException], ...] = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)


def is_transient(error: BaseException) -> bool:
    """Whether the fault belongs to the surroundings and passes."""
    match error:
        case BaseExceptionGroup():
            passes = any(is_transient(one) for one in error.exceptions)
        case asyncpg.PostgresError():
            state = error.sqlstate or ""
            passes = state[:2] in _POSTGRES_CLASSES or state in _POSTGRES_STATES
        case asyncpg.InterfaceError():
            # The class also stands for wrong calls: the driver names what is closed in the message only.
            passes = any(word in str(error) for word in ("closed", "closing", "released"))
        case httpx.HTTPStatusError():
            passes = error.response.status_code >= 500 or error.response.status_code == 429
        case S3Error():
            passes = error.code not in _S3_REFUSALS
        case nats.errors.Error():
            passes = not isinstance(error, _NATS_REFUSALS)
        case OSError():
            passes = error.errno not in _NAMED_WRONGLY
        case _:
            passes = isinstance(error, TRANSIENT) and not isinstance(error, httpx.UnsupportedProtocol)
    return passes


def is_deterministic(error: BaseException) -> bool:
    """Whether the fault comes from what the event holds, so that every try ends in it."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _EVENT_STATES
    return isinstance(error, _BY_THE_EVENT) and not is_transient(error)


def describe(error: BaseException, *, characters: int = 300) -> str:
    """Class and message of an exception on one line of bounded length."""
    text = " ".join(str(error)[: 2 * characters].split())
    return f"{type(error).__name__}: {text}"[:characters] if text else type(error).__name__
