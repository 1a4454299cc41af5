"""Settings of the console. Values come from the environment, LORAFLEET_ before the name."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, SecretStr, model_validator

from fleet_kit.settings import BusSettings

__all__ = ["ACCESS", "ConsoleSettings"]


TokenKind = Literal["id_token", "access_token"]
ID: Final[TokenKind] = "id_token"
ACCESS: Final[TokenKind] = "access_token"


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
    oidc_issuer: str = ""
    """Identity provider on whose page people sign in, as its discovery document names it; also one of
    LORAFLEET_ACCESS_RULES, which give its tokens rights. Empty: tokens and API keys alone."""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr | None = None
    """Of a confidential client; None for a public one."""
    oidc_scope: str = "openid profile"
    oidc_resource: str = ""
    """What access tokens are to be for (RFC 8707), for a provider that wants it named."""
    oidc_token: TokenKind = ID
    """Which token becomes the session; the rules' audience has to be its `aud`: the client's id for an ID token."""
    live_events: int = Field(default=2000, ge=10, le=100_000)
    """Newest events that the live page can show."""
    live_minutes: float = Field(default=15.0, ge=0, le=24 * 60)
    """How far back it begins when the console starts."""

    @model_validator(mode="after")
    def _provider_is_complete(self) -> Self:
        for name, value in (("oidc_client_id", self.oidc_client_id), ("console_url", self.console_url)):
            if self.oidc_issuer and not value:
                raise ValueError(f"{name}: sign-in by oidc_issuer needs it")
        if self.oidc_issuer and self.access_rules is None:
            raise ValueError("access_rules: sign-in by oidc_issuer needs rules that give its tokens rights")
        return self

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
