"""Least privilege on the bus follows from the topology."""

import itertools
import json

import pytest

from fleet_events import v1
from fleet_events.buckets import BUCKETS
from fleet_events.topology import (
    ANSWERS,
    CONSOLE,
    EVERY_EVENT,
    FACTS,
    FOLLOWED_AREAS,
    LONGEST,
    SERVICES,
    STREAM,
    STREAMS,
    TOPOLOGY,
    consumers_of,
    durable_name,
    followed_by,
    row_of,
)
from fleet_kit.nats_auth import USERS, permissions, server_config

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_publish_its_own_events_and_no_others(service: str) -> None:
    allowed = permissions(service)["publish"]["allow"]
    for row in TOPOLOGY:
        assert (row.subject in allowed) == (service in row.published_by)
    assert not any(subject in {">", "lorafleet.>", "lorafleet.v1.>", "$JS.>", "$JS.API.>"} for subject in allowed)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_take_from_its_own_durables_and_read_its_own_replies(service: str) -> None:
    allowed = permissions(service)
    taken = [subject for subject in allowed["publish"]["allow"] if ".MSG.NEXT." in subject]
    own = [durable_name(consumer, row) for row, consumer in consumers_of(service)]
    assert sorted(subject.rpartition(".")[2] for subject in taken) == sorted(own)
    assert allowed["subscribe"]["allow"] == [f"_INBOX_{service}.>"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_read_the_facts_from_their_start_where_it_follows_some_and_nowhere_else(service: str) -> None:
    allowed = permissions(service)["publish"]["allow"]
    made = [one for one in allowed if one.startswith(f"$JS.API.CONSUMER.CREATE.{STREAM}.")]
    areas = [area for area in FOLLOWED_AREAS if followed_by(service, area).events]
    if service == CONSOLE:
        made.remove(f"$JS.API.CONSUMER.CREATE.{STREAM}.*.{EVERY_EVENT}")
    assert made == [f"$JS.API.CONSUMER.CREATE.{STREAM}.*.lorafleet.v1.{area}.>" for area in areas]
    assert "access" in areas


def test_the_console_alone_may_watch_every_event_and_no_answer_that_people_were_given() -> None:
    watching = {
        (user, one.split(".")[4])
        for user in SERVICES
        for one in permissions(user)["publish"]["allow"]
        if one.startswith("$JS.API.CONSUMER.CREATE.") and one.endswith(f".*.{EVERY_EVENT}")
    }
    assert watching == {(CONSOLE, stream.name) for stream in STREAMS if stream is not ANSWERS}


def test_the_console_may_publish_nothing_but_the_use_of_keys_its_own_dead_letters_and_its_probe() -> None:
    allowed = permissions(CONSOLE)["publish"]["allow"]
    facts = [one for one in allowed if not one.startswith("$JS.")]
    assert sorted(facts) == [
        "lorafleet.dlq.console.>", "lorafleet.probe.console", row_of(v1.ApiKeysUsed).subject
    ]  # fmt: skip


def test_only_who_publishes_followed_facts_may_ask_for_their_place_in_the_stream() -> None:
    asking = {
        user
        for user in SERVICES
        if any(f"DIRECT.GET.{FACTS.name}." in one for one in permissions(user)["publish"]["allow"])
    }
    assert asking == {"registry"}


def test_a_filter_of_followed_events_is_the_narrowest_that_lets_all_of_them_pass() -> None:
    assert {row.area for row in TOPOLOGY if row.followed_by} == set(FOLLOWED_AREAS)
    for service, area in itertools.product(SERVICES, FOLLOWED_AREAS):
        followed = followed_by(service, area)
        rows = [row_of(event) for event in followed.events]
        # Facts are kept for good, or until what they are about has ended: from those alone is a projection rebuilt.
        assert all(row.stream is FACTS for row in rows)
        assert {row.keep for row in rows} <= {LONGEST if area == "access" else None}
        prefix = followed.subjects.removesuffix(">")
        assert all(row.subject.startswith(prefix) for row in rows)
        assert len({row.subject.removeprefix(prefix).split(".")[0] for row in rows}) != 1


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_writes_its_own_buckets_reads_what_it_keeps_and_watches_those_it_may_read_and_no_others(
    service: str,
) -> None:
    allowed = permissions(service)["publish"]["allow"]
    for bucket in BUCKETS:
        subjects = [one for one in allowed if bucket.name in one]
        watch = f"$JS.API.CONSUMER.CREATE.{bucket.stream}.*.{bucket.subjects}"
        wanted = [bucket.subjects] if bucket.service == service else []
        if bucket.kept and bucket.service == service:
            wanted.append(f"$JS.API.STREAM.MSG.GET.{bucket.stream}")
            wanted += [f"$JS.API.STREAM.INFO.{bucket.stream}"] if bucket.listed else []
        elif service in (bucket.service, *bucket.readers):
            wanted += [f"$JS.API.STREAM.INFO.{bucket.stream}", watch, f"$JS.FC.{bucket.stream}.>"]
        assert subjects == wanted


def test_upstream_may_start_the_loop_and_record_data_and_nothing_else() -> None:
    assert sorted(permissions("upstream")["publish"]["allow"]) == [
        "lorafleet.v1.data.feedback_recorded",
        "lorafleet.v1.data.preference_recorded",
        "lorafleet.v1.data.sample_recorded",
        "lorafleet.v1.evaluation.requested",
        "lorafleet.v1.training.requested",
    ]


def test_the_server_configuration_holds_every_user_once_and_upstream_apart_from_the_streams() -> None:
    text = server_config({user: f"U{user.upper()}" for user in USERS})
    accounts = json.loads(text.partition("accounts: ")[2])
    inside = [user for user in USERS if user != "upstream"]
    assert [user["nkey"] for user in accounts["FLEET"]["users"]] == [f"U{user.upper()}" for user in inside]
    assert [user["nkey"] for user in accounts["UPSTREAM"]["users"]] == ["UUPSTREAM"]
    assert "jetstream" not in accounts["UPSTREAM"]
    imported = [one["service"]["subject"] for one in accounts["UPSTREAM"]["imports"]]
    assert imported == permissions("upstream")["publish"]["allow"]


def test_an_unknown_user_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'mallory' must be one of"):
        permissions("mallory")
