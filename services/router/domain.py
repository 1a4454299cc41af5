"""What the routing index holds of an adapter, and how an event changes it.

The highest revision of each kind wins, so that events may come in any order and any number of times.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fleet_events.v1 import AdapterActivated, AdapterDeactivated, RoutingProfile

NEVER = -1


@dataclass(frozen=True, slots=True)
class Route:
    """One adapter in the index; `activated` and `deactivated` are revisions of its family."""

    adapter_id: str
    family: str
    domain: str
    version: str = ""
    description: str = ""
    activated: int = NEVER
    deactivated: int = NEVER
    texts: tuple[str, ...] = ()
    """The description first, then the example prompts."""
    profile: RoutingProfile | None = None
    """Vectors of its training prompts, where the trainer made them."""

    @property
    def routable(self) -> bool:
        """Not deactivated since it was last activated. A newer version of its family may still hide it."""
        return self.activated > self.deactivated


def texts_of(description: str, example_prompts: tuple[str, ...]) -> tuple[str, ...]:
    """Texts to embed, in order, without blanks and repetitions."""
    return tuple(dict.fromkeys(text.strip() for text in (description, *example_prompts) if text.strip()))


def activate(held: Route | None, event: AdapterActivated) -> Route:
    """The route after this activation; `held` unchanged where the event is older than what is held."""
    adapter = event.adapter
    if held is None:
        held = Route(adapter.adapter_id, adapter.family, adapter.domain)
    if event.revision <= held.activated:
        return held
    return replace(
        held,
        version=adapter.version,
        description=adapter.description,
        activated=event.revision,
        texts=texts_of(adapter.description, adapter.example_prompts),
        profile=adapter.routing,
    )


def deactivate(held: Route | None, event: AdapterDeactivated) -> Route:
    """The route after this deactivation; a tombstone where the adapter was not known yet."""
    if held is None:
        held = Route(event.adapter_id, event.family, event.domain)
    if event.revision <= held.deactivated:
        return held
    return replace(held, deactivated=event.revision)


def apply(held: Mapping[str, Route], event: AdapterActivated | AdapterDeactivated) -> dict[str, Route]:
    """The whole index after one event: what a rebuild folds the stream with."""
    if isinstance(event, AdapterActivated):
        route = activate(held.get(event.adapter.adapter_id), event)
    else:
        route = deactivate(held.get(event.adapter_id), event)
    return {**held, route.adapter_id: route}
