"""Events that a broken or hostile publisher could send, made from a seed."""

import json
import random
from collections.abc import Iterator

__all__ = ["hostile_events"]


def hostile_events(seed: int, count: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bodies and headers for lorafleet.v1.data.feedback_recorded, none of which can be handled.

    Every event has a `ce-id` of its own where its headers can carry one.
    """
    pick = random.Random(seed)
    for number in range(count):
        body, headers = pick.choice(_KINDS)(pick)
        yield body, {"ce-id": f"hostile-{seed}-{number}", **headers}


def _body(**fields: object) -> bytes:
    return json.dumps({"generationId": "hostile", "rating": 5} | fields).encode()


def _nested(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    depth = pick.choice([70, 300, 30_000])
    opening, closing = pick.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return b'{"generationId": "x", "rating": ' + opening * depth + b"1" + closing * depth + b"}", {}


def _number(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    number = pick.choice([b"1e999", b"NaN", b"-Infinity", b"9" * pick.choice([30, 4000, 40_000]), b"5.5", b"-0.1"])
    return b'{"generationId": "x", "rating": ' + number + b"}", {}


def _text(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    text = pick.choice(["a\x00b", "\x00", "half \ud800", "\udfff end"])
    return _body(**{pick.choice(["generationId", "comment", "prompt", "domain"]): text}), {}


def _syntax(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    whole = _body(comment="c" * pick.randrange(50))
    return whole[: pick.randrange(1, len(whole))], {}


def _bytes(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    kind = pick.choice(["application/json", "application/protobuf"])
    return b"\xff" + pick.randbytes(pick.choice([3, 100, 5000])), {"content-type": kind}


def _types(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    wrong = pick.choice([True, [], {}, "many", 6, -1, [[1]], {"a": 1}])
    return _body(rating=wrong), {}


def _many_faults(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    values = b"[" + b"[]," * pick.choice([10, 80_000]) + b"1]"
    return pick.choice([values, b'{"generationId": ' + values + b"}", b'{"rating": 5, "other": ' + values + b"}"]), {}


def _large(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    return _body(comment="x" * pick.choice([262_144, 700_000])), {}


def _headers(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    headers: dict[str, str] = pick.choice(
        [
            {"ce-type": "lorafleet.events.v1.Approved"},
            {"ce-type": "x" * 5000},
            {"ce-time": "yesterday"},
            {"ce-time": "0001-01-01T00:00:00+23:59"},
            {"ce-time": "9999-12-31T23:59:59-23:59"},
            {"ce-time": "2026-01-01T00:00:00"},
            {"ce-id": "i" * 20_000},
            {"ce-id": "bell\x07"},
            {"ce-id": "nul\x00"},
            {"ce-id": "größe"},
            {"ce-subject": "s" * 20_000},
            {"ce-subject": "nul\x00"},
            {"ce-source": "nul\x00"},
            {"content-type": "text/plain"},
            {"content-type": "application/cloudevents+json"},
            {"content-type": "application/cloudevents-batch+json"},
            {"content-type": "application/xml;" * 500},
            {f"x-{number}": "v" * 400 for number in range(100)},
        ]
    )
    return _body(), headers


def _protobuf(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    nested = b""
    for _ in range(pick.choice([5, 60])):
        nested = b"\x7b" + nested + b"\x7c"  # groups within each other, field 15
    return nested + pick.choice([b"\x20\x63", b"\x0a\x04a\x00bc\x20\x05"]), {"content-type": "application/protobuf"}


def _structured(pick: random.Random) -> tuple[bytes, dict[str, str]]:
    event = {"specversion": "1.0", "id": "a", "data": {"generationId": "x", "rating": 9}}
    wrong = pick.choice(
        [{}, {"id": [[1]]}, {"data_base64": "?"}, {"specversion": 1}, {"data": "[" * 5000}, {"time": "x"}]
    )
    return json.dumps(event | wrong).encode(), {"content-type": "application/cloudevents+json"}


_KINDS = (_nested, _number, _text, _syntax, _bytes, _types, _many_faults, _large, _headers, _protobuf, _structured)
