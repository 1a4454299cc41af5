"""Settings that every service has. Values come from the environment, LORAFLEET_ before the name."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet_kit.tls import Tls, TlsFiles, database_address, tls_of

__all__ = ["BusSettings", "HttpSettings", "ServiceSettings"]


class HttpSettings(BaseSettings):
    """What one HTTP client can cost a service at most."""

    # A wrong setting is named without its value, which may be a secret.
    model_config = SettingsConfigDict(env_prefix="LORAFLEET_", extra="ignore", frozen=True, hide_input_in_errors=True)

    http_connections: int = Field(default=4096, ge=16)
    """Open at once; beyond it the one that has waited longest for its request is closed."""
    http_head_seconds: float = Field(default=10.0, gt=0)
    """For a request's line and headers."""
    http_body_seconds: float = Field(default=15.0, gt=0)
    """For a body, beside what `http_body_pace` gives it."""
    http_body_pace: int = Field(default=8192, gt=0)
    """Bytes a second that a body must keep."""
    http_write_seconds: float = Field(default=60.0, gt=0)
    """Without a byte taken by the client; then its connection is closed."""
    http_bodies: int = Field(default=256, ge=1)
    """Bodies that are received at once, of all callers."""
    http_bodies_a_caller: int = Field(default=32, ge=1)
    http_leave_seconds: float = Field(default=0.0, ge=0)
    """Between SIGTERM and the end of new connections: as long as a balancer may still send requests here."""
    http_finish_seconds: int = Field(default=5, ge=1)
    """For the requests that run then; what takes longer is cut off."""
    metrics_public: bool = False
    """Whether /metrics is answered without a token."""


class BusSettings(HttpSettings):
    """Where a service listens, what it depends on beside an object store, and who it is."""

    host: str = "127.0.0.1"
    port: int

    nats_url: str
    """nats:// or tls://, of one server or, with commas between, of several of a cluster. With tls:// a server that does
    not ask for TLS is refused."""
    nats_tls_first: bool = False
    """Whether the server expects TLS before it sends anything (`handshake_first`): nobody between can then answer for
    it in the clear."""
    nats_seed_file: Path | None = None
    """File with the nkey seed of this service's NATS user."""

    database_url: str | None = None
    """postgres://role:password@host:port/database; the role owns the schema of the service's name. TLS as in libpq:
    `?sslmode=verify-full`. Of a primary and its standbys: `@a:5432,b:5432/database?target_session_attrs=read-write`."""
    database_pool: int = 10

    jwks: str
    """Key set that verifies tokens, or the issuer's discovery document: a path or an https URL (http on loopback)."""
    access_rules: Path | None = None
    """JSON file of further issuers and the rights that their claims give, see docs/access.md."""
    jwks_max_age_seconds: float = Field(default=300.0, gt=0)
    """Age from which the key set is read again, in the background."""
    jwks_keep_seconds: float = Field(default=43_200.0, gt=0)
    """How long its keys stay good while the issuer cannot be reached. A key that was withdrawn stays good as long."""
    issuer: str = "lorafleet"
    clock_skew_seconds: float = Field(default=10.0, ge=0, le=300)
    """By which the clocks of issuers may differ from ours: a token is good for as long before its beginning and after
    its end."""
    tls_ca_file: Path | None = None
    """Authorities (PEM) that sign the certificates of NATS, PostgreSQL, S3 and the other services, beside the public
    ones."""
    tls_certificate_file: Path | None = None
    """This service's certificate with its chain (PEM). With it HTTP is served over TLS, and it is shown to servers that
    ask for one."""
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    """Authorities of HTTP clients. With it only probes are answered to clients without a certificate of theirs."""

    token_file: Path | None = None
    """This service's own bearer token, for calls to other services."""

    log_level: str = "INFO"
    lease_seconds: float = 15.0
    """How long a worker may be silent before its long work is given to another."""

    @property
    def tls(self) -> Tls:
        """The TLS contexts of these files, one for the process. Raises ValueError for a file that cannot be read."""
        return tls_of(TlsFiles(self.tls_ca_file, self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file))

    @property
    def database_address(self) -> str:
        """`database_url` with the authorities that verify its server; empty where there is no database."""
        return database_address(self.database_url, self.tls_ca_file) if self.database_url else ""

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        TlsFiles(self.tls_ca_file, self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)
        return self


class ServiceSettings(BusSettings):
    """Settings of a service that keeps objects: nearly every one. A service subclasses it in its settings.py."""

    s3_endpoint: str
    """Host and port, or a URL."""
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_session_token: SecretStr | None = None
    """Belongs to temporary keys (AWS STS). It is read at the start: restart the service when they are renewed."""
    s3_bucket: str = "lorafleet"
    s3_region: str = Field(default="us-east-1", pattern="^[A-Za-z0-9_-]{1,64}$")
    """Region that requests are signed for: the bucket's. It is never looked up, which would need wider rights."""
    s3_addressing: Literal["auto", "path", "virtual"] = "auto"
    """Where requests name the bucket: in the path (MinIO, SeaweedFS) or as the first part of the host name. `auto`
    takes the host name for endpoints of AWS and Alibaba Cloud, the path for all others."""
    s3_secure: bool = False
    """Whether to speak TLS with an endpoint without a scheme; a scheme decides for itself."""
