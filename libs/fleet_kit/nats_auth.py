"""NATS users and what each may say and hear, made from the topology table.

A service may publish its own events, take from its own durables, dead-letter what it cannot handle, and write and
watch its own key-value buckets.
`upstream` may publish what the table lets upstream say, and hear nothing. `admin` operates the bus.
"""

import json
from collections.abc import Mapping

from fleet_events.topology import (
    BUCKETS,
    DEAD_STREAM,
    SERVICES,
    STREAM,
    consumers_of,
    durable_name,
    probe_subject,
    said_by,
)

__all__ = ["USERS", "inbox_prefix", "permissions", "server_config"]

USERS = (*SERVICES, "upstream", "admin")

FOLLOWERS = {"inference": "lorafleet.v1.adapter.>", "router": "lorafleet.v1.adapter.>"}
"""Who rebuilds a projection from the stream's start, and from which subjects."""


def inbox_prefix(user: str) -> str:
    """Prefix of a user's reply subjects, so that nobody reads another's replies."""
    return f"_INBOX_{user}"


def permissions(user: str) -> dict[str, dict[str, list[str]]]:
    """Subjects that a user may publish and subscribe to; raises ValueError for an unknown user."""
    if user not in USERS:
        raise ValueError(f"NATS user {user!r} must be one of {', '.join(USERS)}")
    inbox = f"{inbox_prefix(user)}.>"
    if user == "admin":
        return {"publish": {"allow": [">"]}, "subscribe": {"allow": [">"]}}
    if user == "upstream":
        return {"publish": {"allow": list(said_by(user))}, "subscribe": {"allow": [inbox]}}
    publish = [*said_by(user), f"lorafleet.dlq.{user}.>", probe_subject(user), f"$JS.API.STREAM.INFO.{STREAM}"]
    for row, consumer in consumers_of(user):
        durable = durable_name(consumer, row)
        publish += [
            f"$JS.API.CONSUMER.INFO.{STREAM}.{durable}",
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{durable}",
            f"$JS.ACK.{STREAM}.{durable}.>",
        ]
    if followed := FOLLOWERS.get(user):
        publish += [
            f"$JS.API.CONSUMER.CREATE.{STREAM}.*.{followed}",
            f"$JS.FC.{STREAM}.>",
        ]
    for bucket in BUCKETS:
        if bucket.service == user:
            publish += [
                bucket.subjects,
                f"$JS.API.CONSUMER.CREATE.{bucket.stream}.*.{bucket.subjects}",
                f"$JS.FC.{bucket.stream}.>",
            ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": [inbox]}}


def server_config(users: Mapping[str, str]) -> str:
    """The `accounts` part of a nats-server configuration.

    Args:
        users: user name → public nkey (U…). The system account keeps no user.
    """
    listed = [{"nkey": public, "permissions": permissions(name)} for name, public in users.items()]
    account = {"jetstream": "enabled", "users": listed}
    # nats-server reads JSON; DEAD_STREAM lives in the same account as the events.
    return (
        f"# fleet of streams {STREAM} and {DEAD_STREAM}\naccounts: " + json.dumps({"FLEET": account}, indent=2) + "\n"
    )
