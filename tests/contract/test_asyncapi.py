"""The AsyncAPI document covers the topology, and its schemas accept what we say and refuse what we refuse."""

import json

import pytest

from fleet_events import v1
from fleet_events.catalogue import DOCS, asyncapi
from fleet_events.topology import TOPOLOGY, UPSTREAM
from fleet_kit.nats_auth import inbox_prefix

pytestmark = pytest.mark.unit


def test_every_row_is_a_channel_with_its_senders_and_receivers() -> None:
    document = json.loads(json.dumps(asyncapi()))
    assert {channel["address"] for channel in document["channels"].values()} == {row.subject for row in TOPOLOGY}
    sends = [name for name, operation in document["operations"].items() if operation["action"] == "send"]
    assert len(sends) == sum(len(row.published_by) for row in TOPOLOGY)
    receives = [name for name, operation in document["operations"].items() if operation["action"] == "receive"]
    assert len(receives) == sum(len(row.consumed_by) + len(row.followed_by) for row in TOPOLOGY)
    assert {"routerConsumesAdapterActivated", "routerFollowsAdapterActivated"} < set(receives)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = json.loads(json.dumps(asyncapi()))

    def references(node: object) -> list[str]:
        match node:
            case {"$ref": str(target)}:
                return [target]
            case dict():
                return [target for child in node.values() for target in references(child)]
            case list():
                return [target for child in node for target in references(child)]
        return []

    for reference in references(document):
        found: object = document
        for part in reference.removeprefix("#/").split("/"):
            assert isinstance(found, dict)
            assert part in found, reference
            found = found[part]


def test_the_readme_s_bodies_are_events_that_upstream_may_publish() -> None:
    text = (DOCS.parent / "README.md").read_text()
    bodies = [line.strip(" '\\") for line in text.splitlines() if line.startswith("  '{")]
    subjects = [line.split()[3] for line in text.splitlines() if line.startswith("nats pub --jetstream ")]
    assert len(bodies) == len(subjects) == text.count("nats pub") == 2
    assert f"--inbox-prefix {inbox_prefix(UPSTREAM)}`" in text
    for subject, body in zip(subjects, bodies, strict=True):
        row = next(row for row in TOPOLOGY if row.subject == subject)
        assert "upstream" in row.published_by
        assert row.event.from_json(body)
    assert v1.TrainingRequested.from_json(bodies[1]).golden_dataset_id == "shop-golden"
