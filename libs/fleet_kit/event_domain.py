"""Whose event it is: the domain that decides who may look at it."""

from fleet_events import v1
from fleet_events.message import Event

__all__ = ["domain_of"]


def domain_of(event: Event) -> str:
    """The domain that an event concerns; empty for one that concerns none, or all."""
    if isinstance(event, v1.GenerationCompleted) and len(event.mix) > 1:
        return ""  # its adapters may be of several domains, of which the event names one
    about = event.adapter if isinstance(event, v1.AdapterRegistered | v1.AdapterActivated) else event
    return str(getattr(about, "domain", ""))
