"""Whether a message is an event of its subject, published by a service that may publish it."""

from collections.abc import Mapping

from fleet_events.topology import UPSTREAM, Row
from fleet_kit.errors import Refused

__all__ = ["check_origin"]


def check_origin(row: Row, headers: Mapping[str, str]) -> None:
    """Refuse what reached a subject without being an event of it.

    JetStream's own answers (a PubAck, a delivery) go to the reply subject that the request names, and a reply subject
    may be one of ours. So a fact that only services publish must carry the CloudEvents attributes that they all
    write. Where upstream systems publish too, attributes may be left out, but not be wrong.

    Args:
        row: the row of the message's subject.
        headers: its headers, names in lower case.

    Raises:
        Refused: ce-specversion, ce-type or ce-source is missing or not what the row allows.
    """
    expected: dict[str, tuple[str, ...]] = {"ce-specversion": ("1.0",), "ce-type": (row.event.type_name,)}
    if UPSTREAM in row.published_by:
        expected = {name: values for name, values in expected.items() if name in headers}
    else:
        expected["ce-source"] = tuple(f"lorafleet/{service}" for service in row.published_by)
    for name, allowed in expected.items():
        found = headers.get(name)
        if found not in allowed:
            shown = "is missing" if found is None else f"is {found[:80]!r}"
            raise Refused(f"no event of {row.subject}: {name} {shown}, it must be {' or '.join(allowed)}")
