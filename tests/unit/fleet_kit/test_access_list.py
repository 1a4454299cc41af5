"""API keys and revoked tokens: what a process makes of the registry's events, and which it then lets pass."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from fleet_events import Event, v1
from fleet_kit.access_list import AccessList
from fleet_kit.api_keys import ApiKey
from fleet_kit.auth import LocalIssuer, Verifier, is_fleet_token
from fleet_kit.caller import LONGEST_LIFE, Caller
from fleet_kit.errors import Problem
from fleet_kit.key_use import KeyUse

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """Seconds since 1970, which a test moves."""

    seconds: float = START.timestamp()

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> AccessList:
    """A list that has read all events there are: none."""
    made = AccessList("inference", skew=5, now=clock)
    made.caught_up.set()
    return made


def created(key: ApiKey, *, days: float = 90) -> v1.ApiKeyCreated:
    return v1.ApiKeyCreated(
        key_id=key.key_id,
        secret_sha256=key.secret_sha256,
        scopes=("generate",),
        domains=("shop",),
        expires_at=START + timedelta(days=days),
        by="ada",
    )


def revoked(named_by: v1.NamedBy, value: str) -> v1.TokenRevoked:
    return v1.TokenRevoked(
        named_by=named_by, value=value, revoked_at=START, until=START + LONGEST_LIFE, by="ada", reason="lost"
    )


def refusal(access: AccessList, text: str) -> tuple[int, str, str]:
    """Status and detail of the answer, and the reason in the log."""
    with capture_logs() as lines, pytest.raises(Problem) as caught:
        access.caller_of(text)
    return caught.value.status, caught.value.detail, lines[-1]["reason"] if lines else ""


async def test_a_key_has_the_scopes_and_domains_of_its_record_and_its_own_subject(access: AccessList) -> None:
    key = ApiKey.new()
    await access.apply(created(key))
    assert key.text.startswith("lf_")
    assert access.caller_of(key.text) == Caller(f"key:{key.key_id}", frozenset({"generate"}), frozenset({"shop"}))


async def test_why_a_key_is_refused_is_logged_and_not_told(access: AccessList, clock: Clock) -> None:
    good, ended, short = ApiKey.new(), ApiKey.new(), ApiKey.new()
    for key in (good, ended):
        await access.apply(created(key))
    await access.apply(created(short, days=1 / 86_400))
    await access.apply(v1.ApiKeyRevoked(key_id=ended.key_id, by="ada"))
    clock.seconds += 2
    tries = {
        "unknown": ApiKey.new().text,
        "revoked": ended.text,
        "expired": short.text,
        "wrong secret": ApiKey(good.key_id, ApiKey.new().secret).text,
        "no API key": "lf_nonsense",
    }
    for reason, text in tries.items():
        status, told, logged = refusal(access, text)
        assert (status, told) == (401, "API key refused: it is unknown, expired or revoked")
        assert logged.startswith(reason)


@pytest.mark.parametrize("first", ["created", "revoked"])
async def test_a_revoked_key_stays_revoked_however_often_and_in_which_order_the_events_come(
    access: AccessList, first: str
) -> None:
    key = ApiKey.new()
    events: list[Event] = [created(key), v1.ApiKeyRevoked(key_id=key.key_id, by="ada")]
    for event in (events if first == "created" else events[::-1]) * 2 + [events[0]]:
        await access.apply(event)
    assert refusal(access, key.text)[0] == 401


async def test_a_key_is_as_long_as_256_bits_and_only_its_digest_is_an_event(access: AccessList) -> None:
    key = ApiKey.new()
    assert len(key.secret) == 43
    assert ApiKey.read(key.text) == key
    assert key.secret not in created(key).to_json().decode()
    assert key.secret not in repr(key)
    assert is_fleet_token(key.text)


async def test_nobody_is_verified_before_the_events_have_been_read_once(clock: Clock) -> None:
    access, key = AccessList("inference", now=clock), ApiKey.new()
    await access.apply(created(key))
    with pytest.raises(RuntimeError, match="being read"):
        await access.ready()
    with pytest.raises(Problem) as caught:
        access.caller_of(key.text)
    assert caught.value.status == 503
    with pytest.raises(Problem) as caught:
        access.check_token("id", "ada", clock())
    assert caught.value.status == 503


async def test_a_revoked_token_is_refused_by_its_id_or_by_its_subject_until_newer_ones_are_issued(
    access: AccessList,
) -> None:
    await access.apply(revoked(v1.NamedBy.JTI, "one"))
    await access.apply(revoked(v1.NamedBy.SUBJECT, "bob"))
    at = START.timestamp()
    access.check_token("two", "ada", at - 60)
    access.check_token("", "ada", at - 60)
    access.check_token("three", "bob", at + 6)
    # An issuer's clock may be ahead by `skew`.
    for token_id, subject, issued in (("one", "ada", at + 60), ("three", "bob", at), ("", "bob", at + 5)):
        with pytest.raises(Problem, match="revoked") as caught:
            access.check_token(token_id, subject, issued)
        assert caught.value.status == 401


async def test_what_was_begun_with_a_key_or_token_counts_as_revoked_with_it_and_not_once_it_has_expired(
    access: AccessList, clock: Clock
) -> None:
    kept, ended = ApiKey.new(), ApiKey.new()
    for key in (kept, ended):
        await access.apply(created(key, days=1))
    at = START.timestamp()
    await access.apply(v1.ApiKeyRevoked(key_id=ended.key_id, by="ada"))
    await access.apply(revoked(v1.NamedBy.JTI, "one"))
    await access.apply(revoked(v1.NamedBy.SUBJECT, "bob"))
    begun = {
        (f"key:{kept.key_id}", "", at): False,
        (f"key:{ended.key_id}", "", at): True,
        ("ada", "two", at): False,
        ("ada", "", at): False,
        ("ada", "one", at + 60): True,
        ("bob", "two", at - 60): True,
        ("bob", "two", at + 5): True,  # an issuer's clock may be ahead by `skew`
        ("bob", "two", at + 6): False,
    }
    assert {one: access.is_revoked(*one) for one in begun} == begun
    clock.seconds += 2 * 86_400
    with pytest.raises(Problem):
        access.caller_of(kept.text)
    assert not access.is_revoked(f"key:{kept.key_id}", "", at)


async def test_what_has_ended_by_itself_is_forgotten(access: AccessList, clock: Clock) -> None:
    keys = [ApiKey.new() for _ in range(10)]
    for key in keys:
        await access.apply(created(key))
    for key in keys[:5]:
        await access.apply(v1.ApiKeyRevoked(key_id=key.key_id, by="ada"))
    await access.apply(revoked(v1.NamedBy.JTI, "one"))
    await access.apply(revoked(v1.NamedBy.SUBJECT, "bob"))
    clock.seconds += LONGEST_LIFE.total_seconds() + 1
    await access.apply(created(keys[0]))
    assert (access._keys, access._ended, access._jtis, access._subjects) == ({}, {}, {}, {})


async def test_the_verifier_takes_keys_and_refuses_revoked_tokens(
    access: AccessList, clock: Clock, tmp_path: object
) -> None:
    issuer = LocalIssuer.create(tmp_path)  # type: ignore[arg-type]
    verifier = Verifier(f"{tmp_path}/jwks.json", "lorafleet", access=access)
    key, token = ApiKey.new(), issuer.mint("bob", ["train"], ["shop"])
    await access.apply(created(key))
    assert (await verifier.caller_of(f"Bearer {key.text}", "shop,bank")).domains == {"shop"}
    assert (await verifier.caller_of(f"Bearer {key.text}", "bank")).domains == frozenset()
    assert (await verifier.verify(token)).subject == "bob"
    soon = datetime.now(UTC) + timedelta(seconds=1)
    await access.apply(
        v1.TokenRevoked(named_by=v1.NamedBy.SUBJECT, value="bob", revoked_at=soon, until=soon + LONGEST_LIFE, by="ada")
    )
    with pytest.raises(Problem, match="revoked"):
        await verifier.verify(token)


async def test_no_token_calls_as_a_key_or_lasts_longer_than_its_revocation(tmp_path: object) -> None:
    issuer = LocalIssuer.create(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for API keys alone"):
        issuer.mint("key:0123456789abcdef", ["train"])
    with pytest.raises(ValueError, match="366 days"):
        issuer.mint("ada", ["train"], ttl=LONGEST_LIFE + timedelta(days=1))


async def test_uses_are_reported_once_a_key_and_again_where_the_bus_did_not_take_them() -> None:
    use, published, failures = KeyUse(), [], [ConnectionError("down")]
    key_id = ApiKey.new().key_id
    done = asyncio.Event()

    async def publish(event: Event, _entity: str) -> None:
        if failures:
            raise failures.pop()
        published.append(event)
        done.set()

    for second in range(100):
        use.note(key_id, START.timestamp() + second)
    reporting = asyncio.create_task(use.report(publish, every=0))
    async with asyncio.timeout(5):
        await done.wait()
    reporting.cancel()
    [event] = published
    assert isinstance(event, v1.ApiKeysUsed)
    assert [(one.key_id, one.used_at) for one in event.uses] == [(key_id, START + timedelta(seconds=99))]
