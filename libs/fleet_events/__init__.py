"""The events of the fleet: contracts generated from proto-schemas, and the table of who publishes and consumes them."""

from fleet_events.message import Event, Message

__all__ = ["Event", "Message"]
