"""Settings of the trainer."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator

from fleet_events.topology import MAX_BUILDS
from fleet_kit import memory as machine_memory
from fleet_kit.auth import is_fleet_token
from fleet_kit.settings import ServiceSettings
from lora_core.base_model import SLOT_RANK
from services.trainer.datasets.generators.endpoint import Endpoint

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Place:
    """What a connection string names. Two strings of one database may differ; the trainer asks the server too."""

    server: tuple[str, int]
    database: str
    role: str

    @classmethod
    def of(cls, dsn: str) -> Self:
        """The place in a postgres:// URL, its query included."""
        parts = urlsplit(dsn)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "," in parts.netloc:  # of several servers the client takes one that answers
            return cls((parts.netloc.rpartition("@")[2], 0), parts.path.strip("/"), unquote(parts.username or ""))
        host = asked.get("host", parts.hostname or "localhost")
        role = asked.get("user", unquote(parts.username or ""))
        server = ("localhost" if host in _LOOPBACK else host.lower(), int(asked.get("port", parts.port or 5432)))
        return cls(server, asked.get("dbname", unquote(parts.path.strip("/"))) or role, role)


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
    """A document store that answers queries with NDJSON (see data/sources/documents.py).

    `token` is sent as its bearer token; `resume` says that it takes `after=<id>`.
    """

    url: HttpUrl
    token: SecretStr | None = None
    resume: bool = False


class GenerationEndpoint(NamedSource):
    """A server of the OpenAI chat protocol that writes synthetic records (see data/generators/endpoint.py).

    `url` is its base URL, for example https://api.example.com/v1; `token` is sent as bearer token, as is what
    `token_file` holds when a build begins. `concurrency`: requests under way at once. `foreign`: not one of the
    fleet's own; only such a server is not told for which domains it is asked, and it may not have a token of the fleet.
    """

    url: HttpUrl
    model: str
    token: SecretStr | None = None
    token_file: Path | None = None
    concurrency: int = Field(default=4, ge=1, le=64)
    foreign: bool = False

    def opened(self, act_for: tuple[str, ...]) -> Endpoint:
        """The endpoint with its token, asked for a caller that reaches these domains.

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


class TrainerSettings(ServiceSettings):
    """What training needs beyond what every service needs (environment prefix `LORAFLEET_`)."""

    port: int = 8102
    base_model: Path
    """Folder of the base model: config.json, *.safetensors, tokenizer."""
    base_model_name: str = ""
    """Name that requests and adapters use for it; empty takes the folder's name."""
    embedding_model: Path | None = None
    """Folder of the router's embedding model. With it an adapter comes with the centroids of its training prompts,
    which the router finds it by; without, with a few example prompts."""
    cache_dir: Path = Path(tempfile.gettempdir())
    """Where running jobs keep their files; nothing in it is needed after a crash."""
    threads: int = Field(default=0, ge=0)
    """Threads of the training's arithmetic; 0 takes the cores this process may use."""
    memory_bytes: int = Field(default=0, ge=0)
    """Memory that a training may take; 0 takes this process's limit (see fleet_kit.memory), or a Job's."""
    launcher: Literal["local", "kubernetes"] = "local"
    """Where trainings run: as subprocesses of this service, or as Jobs of the Kubernetes cluster that it is in."""
    job_image: str = "lorafleet/torch"
    """Image of such Jobs: this service's own."""
    job_namespace: str = ""
    """Their namespace; empty takes this pod's."""
    job_cpus: int = Field(default=4, ge=1)
    job_memory_bytes: int = Field(default=12 * 2**30, ge=2**30)
    job_gpus: int = Field(default=0, ge=0)
    job_seconds: int = Field(default=24 * 3600, ge=60)
    """Longest time of one attempt as a Job."""
    job_work_claim: str = "lorafleet-work"
    """Claim of a ReadWriteMany volume that is mounted at `job_work_path` here and in the Jobs; `cache_dir` is in it."""
    job_work_path: Path = Path("/var/cache/lorafleet")
    job_models_claim: str = "lorafleet-models"
    """Claim of the volume with the base model, whose folder's parent is where it is mounted."""
    progress_seconds: float = Field(default=10.0, gt=0)
    """Shortest time between two TrainingProgressed events of a job."""
    flush_seconds: float = Field(default=1.0, gt=0)
    """Time between two writes of what a job logged."""
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
    """Memory for data that one building process may take (on Linux); a build that needs more fails by name."""
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
    open_builds_per_domain: int = Field(default=100, ge=1)
    """Builds of one domain that may wait or run."""
    open_jobs_per_domain: int = Field(default=200, ge=1)
    """Jobs of one domain that may wait, run or rest."""
    resume_hours: float = Field(default=24.0, ge=0)
    """Hours for which a failed or cancelled job keeps its checkpoints, so that a retry resumes from them."""
    sweep_seconds: float = Field(default=600.0, gt=0)
    """Time between two looks for what has expired."""
    max_rank: int = Field(default=SLOT_RANK, ge=1)
    """Largest rank that a training may ask for: what inference's slots hold, which read the same variable."""
    probe_prompt: str = "What can you help me with?"
    """Prompt whose next-token logits prove, at every activation, that an adapter has its effect."""

    @model_validator(mode="after")
    def _foreign_sources(self) -> Self:
        own = Place.of(self.database_url) if self.database_url else None
        for name, source in self.sql_sources.items():
            place = Place.of(source.dsn.get_secret_value())
            if own and place.server == own.server and (place.database == own.database or place.role == own.role):
                raise ValueError(
                    f"sql_sources: {name!r} is the trainer's own database or role, expected another database "
                    "and a role that may only read it"
                )
        return self

    @property
    def trained_name(self) -> str:
        return self.base_model_name or self.base_model.name

    @property
    def memory(self) -> int:
        """Bytes that a training may take; 0 where nothing tells."""
        if self.memory_bytes:
            return self.memory_bytes
        return self.job_memory_bytes if self.launcher == "kubernetes" else machine_memory.available()

    @property
    def cores(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))
