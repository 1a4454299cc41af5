"""Settings of the wing that makes data sets, and of the sources that recipes may name."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator

from fleet_events.topology import MAX_BUILDS
from fleet_kit.auth import is_fleet_token
from fleet_kit.settings import ServiceSettings
from services.trainer.datasets.generators.endpoint import Endpoint

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class DatabaseAddress:
    """What a connection string names. Two strings of one database may differ; the trainer queries the server too."""

    server: tuple[str, int]
    database: str
    role: str

    @classmethod
    def of(cls, dsn: str) -> Self:
        """The place in a postgres:// URL, its query included."""
        parts = urlsplit(dsn)
        parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "," in parts.netloc:  # of several servers the client takes one that answers
            return cls((parts.netloc.rpartition("@")[2], 0), parts.path.strip("/"), unquote(parts.username or ""))
        host = parameters.get("host", parts.hostname or "localhost")
        role = parameters.get("user", unquote(parts.username or ""))
        server = ("localhost" if host in _LOOPBACK else host.lower(), int(parameters.get("port", parts.port or 5432)))
        return cls(server, parameters.get("dbname", unquote(parts.path.strip("/"))) or role, role)


class NamedSource(BaseModel):
    """A source outside the fleet that recipes of data sets use by its name. `domains`: whose recipes may."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domains: tuple[str, ...] = ("*",)

    def reaches(self, domain: str) -> bool:
        """Whether recipes of this domain may use it."""
        return "*" in self.domains or domain in self.domains


class SqlSource(NamedSource):
    """A PostgreSQL database. `{"dsn": "postgres://…"}`, or the DSN alone."""

    dsn: SecretStr

    @model_validator(mode="before")
    @classmethod
    def _dsn_alone(cls, values: object) -> object:
        return {"dsn": values} if isinstance(values, str) else values


class DocumentStore(NamedSource):
    """A document store that answers queries with NDJSON (see datasets/sources/documents.py).

    `token` is sent as its bearer token; `resume` states that it takes `after=<id>`.
    """

    url: HttpUrl
    token: SecretStr | None = None
    resume: bool = False


class GenerationEndpoint(NamedSource):
    """A server of the OpenAI chat protocol that writes synthetic records (see datasets/generators/endpoint.py).

    `url` is its base URL, for example https://api.example.com/v1; `token` is sent as bearer token, as is what
    `token_file` holds when a build begins. `concurrency`: requests under way at once. `foreign`: not one of the
    fleet's own; only such a server does not learn for which domains it is called, nor gets a token of the fleet.
    """

    url: HttpUrl
    model: str
    token: SecretStr | None = None
    token_file: Path | None = None
    concurrency: int = Field(default=4, ge=1, le=64)
    foreign: bool = False

    def opened(self, act_for: tuple[str, ...], ca_file: Path | None) -> Endpoint:
        """The endpoint with its token, for a caller that reaches these domains; `ca_file` as in `Endpoint`.

        Raises:
            OSError: the file with the token cannot be read.
            ValueError: a foreign server would get a token of the fleet.
        """
        return Endpoint(
            url=str(self.url),
            model=self.model,
            token=self._token(),
            act_for=None if self.foreign else act_for,
            concurrency=self.concurrency,
            ca_file=ca_file,
        )

    def _token(self) -> str:
        token = self.token.get_secret_value() if self.token else ""
        if self.token_file:
            token = self.token_file.read_text().strip()
        if self.foreign and is_fleet_token(token):
            raise ValueError("token is one of the fleet, which no foreign server may have; give it one of its own")
        return token

    @model_validator(mode="after")
    def _keep_fleet_tokens(self) -> Self:
        if self.foreign and (self.token_file is None or self.token_file.exists()):
            self._token()
        return self


class DatasetRules(BaseModel):
    """How long a domain's data sets are kept that a newer version has superseded and no job needs; None is for good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    superseded_days: float | None = Field(default=None, ge=0)


class DatasetSettings(ServiceSettings):
    """What data sets need beyond what every service needs (environment prefix `LORAFLEET_`)."""

    cache_dir: Path = Path(tempfile.gettempdir())
    """Where running jobs keep their files; nothing in it is needed after a crash."""
    patience_seconds: float = Field(default=300.0, gt=0)
    """How long a running job waits for the database or the object store before it is given back to the queue."""
    sql_sources: dict[str, SqlSource] = Field(default_factory=dict)
    """Databases that recipes may query: JSON, name → DSN, or name → {"dsn", "domains"}."""
    sql_seconds: float = Field(default=300.0, gt=0)
    """Longest time of a recipe's SQL query."""
    document_stores: dict[str, DocumentStore] = Field(default_factory=dict)
    """Document stores that recipes may query: JSON, name → {"url", "token", "domains", "resume"}."""
    generation_endpoints: dict[str, GenerationEndpoint] = Field(default_factory=dict)
    """Servers that generators of recipes may ask: JSON, name → {"url", "model", "token" or "token_file", "domains",
    "foreign"}."""
    dataset_folders: Path | None = None
    """Folder with a folder for each domain, in which recipes find what Hugging Face `datasets` saved; None has none."""
    samples_bytes: int = Field(default=1024**3, ge=1)
    """Of one request that records samples."""
    build_workers: int = Field(default=3, ge=1, le=MAX_BUILDS)
    """Builds of data sets that this trainer runs side by side."""
    builds_per_domain: int = Field(default=2, ge=1)
    """Builds of one domain that run at a time, over all trainers."""
    build_seconds: float = Field(default=7200.0, gt=0)
    """Longest time of one build, its sources included."""
    build_memory_bytes: int = Field(default=2 * 1024**3, ge=256 * 1024**2)
    """Memory for data that one build process may take (on Linux); a build that needs more fails by name."""
    source_seconds: float = Field(default=1800.0, gt=0)
    """Longest time in which one source of a recipe is read."""
    source_idle_seconds: float = Field(default=60.0, gt=0)
    """Longest time in which a document store sends nothing."""
    source_bytes: int = Field(default=8 * 1024**3, ge=1)
    """Most bytes that one source of a recipe, or one upload, may have."""
    uploads_per_domain: int = Field(default=1000, ge=1)
    """Uploads that one domain may have stored."""
    upload_bytes_per_domain: int = Field(default=50 * 1024**3, ge=1)
    """Bytes that they may have together."""
    upload_days: float = Field(default=90.0, gt=0)
    """Days after which an upload expires that was neither put again nor built from."""
    dataset_retention: dict[str, DatasetRules] = Field(default_factory=dict)
    """Domain → which data sets are kept, as a JSON object; "*" is for domains that are not named."""
    feedback_wait_minutes: float = Field(default=60.0, gt=0)
    """How long feedback waits for the answer that it is on before it counts as unusable."""
    waiting_feedback: int = Field(default=100_000, ge=1)
    """Pieces of feedback that may wait; the oldest beyond that count as unusable."""
    answer_days: float = Field(default=180.0, gt=0)
    """Days for which recorded answers, and feedback on answers, are kept; live records that they made stay."""
    open_builds_per_domain: int = Field(default=100, ge=1)
    """Builds of one domain that may wait or run."""

    def dataset_rules(self, domain: str) -> DatasetRules:
        """The rules of a domain: its own, those of "*", or the default."""
        return self.dataset_retention.get(domain) or self.dataset_retention.get("*") or DatasetRules()

    @model_validator(mode="after")
    def _foreign_sources(self) -> Self:
        own = DatabaseAddress.of(self.database_url) if self.database_url else None
        for name, source in self.sql_sources.items():
            place = DatabaseAddress.of(source.dsn.get_secret_value())
            if own and place.server == own.server and (place.database == own.database or place.role == own.role):
                raise ValueError(
                    f"sql_sources: {name!r} is the trainer's own database or role, expected another database "
                    "and a role that may only read it"
                )
        return self
