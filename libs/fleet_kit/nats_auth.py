"""NATS accounts and users, and what each may publish and subscribe to, made from the topology table.

A service may publish its own events, take from its own durables, dead-letter what it cannot handle, read those letters,
and write and watch, or read, its own key-value buckets; the trainer may also delete single messages of the streams that
hold what people wrote.
`admin` operates the bus.

`upstream` has an account of its own that imports the subjects the table lets upstream publish, and nothing else. A
server checks no permission for the reply subject of a message, and JetStream publishes its PubAck there: in one
account with the streams, a publisher could have that PubAck stored on any subject. Across accounts the server
replaces the reply subject by one of its own, and the PubAck arrives in the publisher's account, which has no stream.
"""

import json
from collections.abc import Mapping

from fleet_events.buckets import BUCKETS
from fleet_events.topology import (
    CONSOLE,
    DEAD_STREAM,
    ERASABLE,
    EVERY_EVENT,
    FOLLOWED_AREAS,
    SERVICES,
    STORING,
    STREAM,
    STREAMS,
    TOPOLOGY,
    UPSTREAM,
    WATCHED,
    consumers_of,
    durable_name,
    followed_by,
    probe_subject,
    published_by,
)

__all__ = ["USERS", "inbox_prefix", "permissions", "server_config"]

USERS = (*SERVICES, UPSTREAM, "admin")
FLEET_ACCOUNT = "FLEET"
UPSTREAM_ACCOUNT = "UPSTREAM"


def inbox_prefix(user: str) -> str:
    """Prefix of a user's reply subjects, so that no user reads another's replies."""
    return f"_INBOX_{user}"


def permissions(user: str) -> dict[str, dict[str, list[str]]]:
    """Subjects that a user may publish and subscribe to; raises ValueError for an unknown user."""
    if user not in USERS:
        raise ValueError(f"NATS user {user!r} must be one of {', '.join(USERS)}")
    inbox = f"{inbox_prefix(user)}.>"
    if user == "admin":
        return {"publish": {"allow": [">"]}, "subscribe": {"allow": [">"]}}
    if user == UPSTREAM:
        return {"publish": {"allow": list(published_by(user))}, "subscribe": {"allow": [inbox]}}
    looked_at = (*(stream.name for stream in STREAMS), DEAD_STREAM)
    publish = [*published_by(user), f"lorafleet.dlq.{user}.>", probe_subject(user)]
    publish += [f"$JS.API.STREAM.INFO.{name}" for name in looked_at]
    # Its own dead letters, each by its subject.
    publish += [f"$JS.API.DIRECT.GET.{DEAD_STREAM}.lorafleet.dlq.{one}.>" for one in STORING if one == user]
    for stream in ERASABLE.get(user, ()):
        publish += [f"$JS.API.STREAM.MSG.DELETE.{stream}", f"$JS.API.DIRECT.GET.{stream}"]
    for row, consumer in consumers_of(user):
        durable, source = durable_name(consumer, row), row.stream.name
        publish += [
            f"$JS.API.CONSUMER.INFO.{source}.{durable}",
            f"$JS.API.CONSUMER.MSG.NEXT.{source}.{durable}",
            f"$JS.ACK.{source}.{durable}.>",
        ]
    if filters := [found for area in FOLLOWED_AREAS if (found := followed_by(user, area).subjects)]:
        publish += [f"$JS.API.CONSUMER.CREATE.{STREAM}.*.{one}" for one in filters]
        publish.append(f"$JS.FC.{STREAM}.>")
    for watched in WATCHED if user == CONSOLE else ():
        # What happens, as it happens, for people who look at it.
        publish += [f"$JS.API.CONSUMER.CREATE.{watched.name}.*.{EVERY_EVENT}", f"$JS.FC.{watched.name}.>"]
    # The sequence of a fact that it published: where those who follow it have to be for it to be applied.
    publish += [f"$JS.API.DIRECT.GET.{STREAM}.{subjects}" for subjects in _followed_of(user)]
    for bucket in BUCKETS:
        if bucket.service == user:
            publish.append(bucket.subjects)
        if bucket.kept and bucket.service == user:
            # From the leader: what a replica has just written, another one reads.
            publish.append(f"$JS.API.STREAM.MSG.GET.{bucket.stream}")
            if bucket.listed:
                publish.append(f"$JS.API.STREAM.INFO.{bucket.stream}")
        elif user in (bucket.service, *bucket.readers):
            publish += [
                f"$JS.API.STREAM.INFO.{bucket.stream}",
                f"$JS.API.CONSUMER.CREATE.{bucket.stream}.*.{bucket.subjects}",
                f"$JS.FC.{bucket.stream}.>",
            ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": [inbox]}}


def _followed_of(publisher: str) -> list[str]:
    """The filters through which services follow what this one publishes of adapters, whose place it asks for."""
    rows = [row for row in TOPOLOGY if publisher in row.published_by and row.area == "adapter"]
    return sorted({followed_by(name).subjects for row in rows for name in row.followed_by})


def server_config(users: Mapping[str, str]) -> str:
    """The `accounts` part of a nats-server configuration.

    Args:
        users: user name → public nkey (U…). The system account keeps no user.
    """
    listed = {name: {"nkey": public, "permissions": permissions(name)} for name, public in users.items()}
    offered = published_by(UPSTREAM)
    accounts = {
        FLEET_ACCOUNT: {
            "jetstream": "enabled",
            "users": [user for name, user in listed.items() if name != UPSTREAM],
            "exports": [{"service": subject, "accounts": [UPSTREAM_ACCOUNT]} for subject in offered],
        },
        UPSTREAM_ACCOUNT: {
            "users": [user for name, user in listed.items() if name == UPSTREAM],
            "imports": [{"service": {"account": FLEET_ACCOUNT, "subject": subject}} for subject in offered],
        },
    }
    # nats-server reads JSON.
    return "# made from the topology by lorafleet\naccounts: " + json.dumps(accounts, indent=2) + "\n"
