"""Settings that every service has. Values come from the environment, LORAFLEET_ before the name."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseSettings):
    """Where a service listens, what it stands on and who it is. A service subclasses it in its settings.py."""

    # Without the input in its errors: settings hold passwords, and whoever starts a service logs what it refuses.
    model_config = SettingsConfigDict(env_prefix="LORAFLEET_", extra="ignore", frozen=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int

    nats_url: str
    nats_seed_file: Path | None = None
    """File with the nkey seed of this service's NATS user."""

    database_url: str | None = None
    """postgres://role:password@host:port/database; the role owns the schema of the service's name."""
    database_pool: int = 10

    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "lorafleet"
    s3_secure: bool = False

    jwks: str
    """Key set that verifies tokens: a path or an https URL."""
    issuer: str = "lorafleet"
    token_file: Path | None = None
    """This service's own bearer token, for calls to other services."""

    log_level: str = "INFO"
    lease_seconds: float = 15.0
    """How long a worker may be silent before its long work is given to another."""
