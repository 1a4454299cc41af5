"""Settings that every service has. Values come from the environment, LORAFLEET_ before the name."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseSettings):
    """Where a service listens, what it stands on and who it is. A service subclasses it in its settings.py."""

    model_config = SettingsConfigDict(env_prefix="LORAFLEET_", extra="ignore", frozen=True)

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
    """Key set that verifies tokens: a path or an https URL (http on loopback)."""
    jwks_max_age_seconds: float = Field(default=300.0, gt=0)
    """Age from which the key set is read again, in the background."""
    jwks_keep_seconds: float = Field(default=43_200.0, gt=0)
    """How long its keys stay good while the issuer cannot be reached. A key that was withdrawn stays good as long."""
    issuer: str = "lorafleet"
    token_file: Path | None = None
    """This service's own bearer token, for calls to other services."""

    log_level: str = "INFO"
    lease_seconds: float = 15.0
    """How long a worker may be silent before its long work is given to another."""
