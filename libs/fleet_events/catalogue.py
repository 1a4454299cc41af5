"""Writes the event catalogue from the topology: `python -m fleet_events.catalogue [--check]`.

docs/events.md is for people, docs/asyncapi.json (AsyncAPI 3.0) for tools that make clients. README and the docstring of
each service's package are given what the service publishes, consumes and follows.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from pydantic.json_schema import models_json_schema

from fleet_events import v1
from fleet_events.buckets import BUCKETS
from fleet_events.closed_set import ClosedSet
from fleet_events.message import Event
from fleet_events.service_roles import in_docstring, in_readme
from fleet_events.topology import SERVICES, STREAMS, TOPOLOGY, Row, durable_name

CONTENT_TYPES = ["application/json", "application/protobuf", "application/cloudevents+json"]
"""The last is structured mode: the body holds the attributes."""
ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def asyncapi() -> dict[str, object]:
    """Every subject as a channel, every service's part in it as an operation."""
    _, schemas = models_json_schema(
        [(row.event, "validation") for row in TOPOLOGY], ref_template="#/components/schemas/{model}"
    )
    channels: dict[str, object] = {}
    operations: dict[str, object] = {}
    messages: dict[str, object] = {}
    for row in TOPOLOGY:
        name = row.event.__name__
        messages[name] = {
            "name": row.event.type_name,
            "summary": (row.event.__doc__ or "").strip(),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
            "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
        }
        channels[name] = {
            "address": row.subject,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        }
        for service in row.published_by:
            operations[f"{service}Publishes{name}"] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
        for consumer in row.consumed_by:
            operations[f"{consumer.service}Consumes{name}"] = {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{name}"},
                "title": durable_name(consumer, row),
            }
        for service in row.followed_by:
            operations[f"{service}Follows{name}"] = {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{name}"},
                "title": "from the stream's start, without a durable",
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Lorafleet events",
            "version": "1",
            "description": "CloudEvents 1.0 in NATS binary mode on the JetStream streams "
            f"{', '.join(stream.name for stream in STREAMS)}.",
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {**schemas["$defs"], "CloudEventHeaders": cloud_event_headers()},
        },
    }


def cloud_event_headers() -> dict[str, object]:
    """JSON Schema of the headers that a publisher sends."""
    return {
        "type": "object",
        "properties": {
            "ce-specversion": {"type": "string", "const": "1.0"},
            "ce-id": {
                "type": "string",
                "description": "Unique within its source: both together are the event.",
            },
            "ce-type": {"type": "string", "description": "Full protobuf name of the event."},
            "ce-source": {"type": "string", "description": "Who publishes it; unset counts as one source."},
            "ce-time": {"type": "string", "format": "date-time", "description": "Unset: when it was stored."},
            "ce-subject": {"type": "string", "description": "Id of the thing that the event is about."},
            "content-type": {"type": "string", "enum": CONTENT_TYPES},
            "traceparent": {"type": "string", "description": "W3C trace context."},
            "Nats-Msg-Id": {
                "type": "string",
                "description": "ce-source, a slash and ce-id: JetStream drops a repetition within two minutes.",
            },
        },
    }


def page() -> str:
    """The catalogue as Markdown."""
    return "\n".join(
        [
            "# Event catalogue",
            "",
            "Generated from `libs/fleet_events/topology.py` and `proto-schemas/` by `make generate`. Do not edit.",
            "",
            "| event | subject | stream | published by | consumed by (durable) | followed by | kept |",
            "|---|---|---|---|---|---|---|",
            *(_line(row) for row in TOPOLOGY),
            "",
            "A consumer has a durable of that name, whose workers share its messages. A follower reads the stream",
            "from its start in every process, to build a projection. What no service consumes or follows is for",
            "operators and systems beside the fleet: `lorafleet events tail` shows it, as does a consumer of your own.",
            "",
            "Each stream has its own limit and refuses new events when it is full: a full one takes no room from",
            "the others.",
            "",
            "| stream | what | room | kept |",
            "|---|---|---|---|",
            *(
                f"| `{one.name}` | {one.what} | {one.max_bytes / 1024**3:g} GiB | {_days(one.max_age)} |"
                for one in STREAMS
            ),
            "",
            "Key-value buckets hold state beside the events: replicas of one service share theirs there. A full",
            "one on disk drops its oldest values, but for that of batches, which takes no further ones.",
            "",
            "| bucket | of | what | room | forgotten after |",
            "|---|---|---|---|---|",
            *(
                f"| `{one.name}` | {one.service} | {one.what} | "
                f"{one.max_bytes / 1024**2:g} MiB{' on disk' if one.kept else ''} | {one.ttl.total_seconds():g} s |"
                for one in BUCKETS
            ),
            "",
            *(line for row in TOPOLOGY for line in _section(row.event)),
        ]
    )


def _line(row: Row) -> str:
    consumers = ", ".join(f"`{durable_name(consumer, row)}`" for consumer in row.consumed_by) or "—"
    kept = _days(row.keep or row.stream.max_age)
    name = row.event.__name__
    link = f"[{name}](#{name.lower()})"
    followers = ", ".join(row.followed_by) or "—"
    publishers = ", ".join(row.published_by)
    return f"| {link} | `{row.subject}` | `{row.stream.name}` | {publishers} | {consumers} | {followers} | {kept} |"


def _days(kept: timedelta | None) -> str:
    return f"{kept.days} days" if kept else "always"


def _section(event: type[Event]) -> Iterator[str]:
    yield f"## {event.__name__}"
    yield ""
    yield (event.__doc__ or "").strip()
    yield ""
    yield "| field | type | needed |"
    yield "|---|---|---|"
    schema = event.model_json_schema(ref_template="{model}")
    for name, field in schema.get("properties", {}).items():
        needed = "yes" if name in schema.get("required", []) else "no"
        yield f"| `{name}` | {_kind(field)} | {needed} |"
    yield ""


def _kind(schema: dict[str, object]) -> str:
    """A JSON Schema in a few words."""
    match schema:
        case {"$ref": str() as name}:
            named = getattr(v1, name)
            return _permitted(list(named)) if issubclass(named, ClosedSet) else name
        case {"anyOf": [dict() as first, *_]}:
            return _kind(first)
        case {"type": "array", "items": dict() as items}:
            return f"list of {_kind(items)}"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"map of string to {_kind(values)}"
        case {"format": "date-time"}:
            return "RFC 3339 time"
    return _scalar(schema)


def _scalar(schema: dict[str, object]) -> str:
    if isinstance(permitted := schema.get("enum"), list):
        return _permitted(permitted)
    bounds = {"minimum": "≥", "maximum": "≤"}
    # The bounds of every integer of its size carry no information about the field.
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in bounds.items()
        if key in schema and schema[key] not in (-(2**31), 2**31 - 1, -(2**63), 2**63 - 1)
    ]
    if pattern := str(schema.get("pattern", "")).replace("|", "\\|"):
        limits.append(f"`{pattern}`")
    return ", ".join([str(schema.get("type", "any")), *limits])


def _permitted(texts: Sequence[object]) -> str:
    return "one of " + ", ".join(f"`{text}`" for text in texts if text)


def documents() -> dict[Path, str]:
    """Every file that is written, or written in part, from the topology: path → what must be in it.

    Raises:
        ValueError: README or a service's docstring has no place for its part.
    """
    readme = ROOT / "README.md"
    packages = {service: ROOT / "services" / service / "__init__.py" for service in SERVICES}
    return {
        DOCS / "events.md": page(),
        DOCS / "asyncapi.json": json.dumps(asyncapi(), indent=1, sort_keys=True) + "\n",
        readme: in_readme(readme.read_text()),
        **{path: in_docstring(path.read_text(), service) for service, path in packages.items()},
    }


def main(arguments: list[str]) -> int:
    """Write the documents, or with --check list those that differ (exit code 1)."""
    try:
        outputs = documents()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    stale = [
        str(path.relative_to(ROOT)) for path, text in outputs.items() if not path.exists() or path.read_text() != text
    ]
    if "--check" in arguments:
        if stale:
            print(f"these differ from the topology: {', '.join(stale)}; run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in outputs.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
