"""Changes of a route by events in any order."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from fleet_events.v1 import Adapter, AdapterActivated, AdapterDeactivated, Artifact, BaseModel, Blob
from services.router.domain import Route, activate, apply, deactivate, texts_of

Event = AdapterActivated | AdapterDeactivated


def activated(version: str, revision: int, prompts: tuple[str, ...] = ("how do I …",)) -> AdapterActivated:
    digest = "a" * 64
    adapter = Adapter(
        adapter_id=f"law-lora-v{version}",
        family="law-lora",
        domain="law",
        method="lora",
        version=version,
        base_model=BaseModel(name="tiny", revision="b" * 64),
        artifact=Artifact(blob=Blob(uri=f"s3://lorafleet/x/{digest}", sha256=digest), rank=4, alpha=8),
        description="contracts",
        example_prompts=prompts,
    )
    return AdapterActivated(adapter=adapter, revision=revision)


def deactivated(version: str, revision: int) -> AdapterDeactivated:
    return AdapterDeactivated(adapter_id=f"law-lora-v{version}", family="law-lora", domain="law", revision=revision)


LIFE: tuple[Event, ...] = (
    activated("1.0.0", 1),
    activated("2.0.0", 2, ("another prompt",)),
    deactivated("1.0.0", 3),
    deactivated("2.0.0", 4),
    activated("1.0.0", 5, ("prompts of the second activation",)),
)


def fold(events: tuple[Event, ...] | list[Event]) -> dict[str, Route]:
    return reduce(apply, events, {})


@given(st.permutations(LIFE), st.lists(st.sampled_from(LIFE)))
def test_any_order_and_any_repetition_ends_in_the_same_index(order: list[Event], repeated: list[Event]) -> None:
    assert fold([*order, *repeated]) == fold(LIFE)


def test_a_late_activation_does_not_bring_a_route_back() -> None:
    assert not fold([deactivated("1.0.0", 3), activated("1.0.0", 1)])["law-lora-v1.0.0"].routable


def test_an_older_event_changes_nothing() -> None:
    route = activate(None, activated("1.0.0", 5))
    assert activate(route, activated("1.0.0", 4, ("other",))) is route
    route = deactivate(route, deactivated("1.0.0", 6))
    assert deactivate(route, deactivated("1.0.0", 6)) is route


def test_texts_are_the_description_and_the_prompts_without_blanks_and_repetitions() -> None:
    assert texts_of(" contracts ", ("", "q", "q", "contracts")) == ("contracts", "q")
    assert texts_of("", ()) == ()
