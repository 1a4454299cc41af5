"""Settings of the console. Values come from the environment, LORAFLEET_ before the name."""

from __future__ import annotations

from pydantic import Field

from fleet_kit.settings import BusSettings

__all__ = ["ConsoleSettings"]


class ConsoleSettings(BusSettings):
    """Where the other services are, and what the live page keeps."""

    port: int = 8106
    registry_url: str
    trainer_url: str
    evaluator_url: str
    router_url: str
    inference_url: str
    console_url: str = ""
    """Where browsers reach the console, for example https://fleet.example.com. With https its cookie is sent over TLS
    alone; set it where a proxy ends TLS before the console."""
    live_events: int = Field(default=2000, ge=10, le=100_000)
    """Newest events that the live page can show."""
    live_minutes: float = Field(default=15.0, ge=0, le=24 * 60)
    """How far back it begins when the console starts."""

    def service_url(self, service: str) -> str:
        """Where a service answers; raises KeyError for one that is not the console's to call."""
        urls = {
            "registry": self.registry_url,
            "trainer": self.trainer_url,
            "evaluator": self.evaluator_url,
            "router": self.router_url,
            "inference": self.inference_url,
        }
        return urls[service]

    @property
    def over_tls(self) -> bool:
        """Whether browsers reach the console over TLS."""
        return self.console_url.startswith("https://") or self.tls.server is not None
