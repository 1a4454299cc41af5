"""Settings of the inference service."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from lora_core.base_model import SLOT_RANK
from lora_core.device import PATTERN as DEVICE
from lora_core.device import Weights
from services.inference.policies.adapter_settings import AdapterSettings
from services.inference.quotas.limits import Quotas
from services.inference.replicas.selection import NAME, URL


class InferenceSettings(AdapterSettings):
    """What serving needs beyond what every service needs (environment prefix `LORAFLEET_`)."""

    port: int = 8105
    base_model: Path
    """Folder of the base model: config.json, *.safetensors, tokenizer."""
    base_model_name: str = ""
    """Name that requests use for the base model; empty takes the folder's name."""
    further_base_models: dict[str, Path] = Field(default_factory=dict)
    """Base models served beside it, each with slots of its own: name → folder (JSON)."""
    embedding_model: Path | None = None
    """Folder of the sentence-transformers model of /v1/embeddings; without it that endpoint answers 404."""
    embedding_model_name: str = "all-MiniLM-L6-v2"
    """Name that requests use for it."""
    router_url: str = ""
    """Where `model: auto` is resolved; without it `auto` is refused."""
    replica: str = Field(default_factory=socket.gethostname, pattern=NAME)
    """Name of this process in its events, and among other replicas."""
    replica_url: str = Field(default="", pattern=f"^$|{URL}")
    """Where other replicas reach this one, for example http://10.0.3.7:8105; empty: it takes no part among them."""
    announce: float = Field(default=1.0, gt=0, le=2)
    """Seconds between announcements of what this replica holds; after 5 s without one it counts as gone."""
    load_factor: float = Field(default=1.25, ge=1)
    """How far above its share of the load a replica may be before requests for its adapters go to others."""

    cache_dir: Path
    """Disk cache of adapter artifacts, named by digest; may be shared by replicas on one machine."""

    device: str = Field(default="auto", pattern=DEVICE)
    """Where the base models compute: auto (the first GPU if there is one, else the processor), cpu, cuda or cuda:N."""
    weights: Weights = "float32"
    """How the base models keep their weights in this process: float32, bfloat16, float16 or int8 (docs/serving.md says
    what they cost). float32 on the processor alone answers as transformers does."""
    packed_weights: bool = True
    """Whether float32 layers of models of the Llama family are also kept in the processor's order (docs/serving.md)."""
    max_rank: int = Field(default=SLOT_RANK, ge=1)
    adapter_deadline: float = Field(default=60.0, gt=0)
    """Seconds a request waits for its adapter before it gets 503."""
    failed_retry: float = Field(default=15.0, ge=0)
    """Seconds after which a failed adapter may be tried again."""

    batch_rows: int = Field(default=8, ge=1)
    """Requests decoded together."""
    queue_limit: int = Field(default=64, ge=1)
    """Requests that may wait for a row; one more gets 503."""
    requests_per_minute: int = Field(default=0, ge=0)
    """Of one caller (its token's subject), counted by this process alone: behind n replicas a caller may make n times
    as many. One more gets 429 with Retry-After. 0 is no limit."""
    quotas: Quotas = Quotas()
    """What domains and callers may take of all replicas together (JSON), for example
    {"domains": {"*": {"month": {"completion_tokens": 1000000}}}, "callers": {"*": {"minute": {"requests": 60}}}}."""
    max_prompt_tokens: int = Field(default=2048, ge=1)
    max_completion_tokens: int = Field(default=1024, ge=1)
    default_completion_tokens: int = Field(default=256, ge=1)
    prefix_cache_bytes: int = Field(default=256 * 1024**2, ge=0)
    """Keys and values of prompts' beginnings that are kept, of each base model in this process; 0 keeps none."""
    threads: int = Field(default=0, ge=0)
    """Threads of the engine's arithmetic; 0 takes every core, or what OMP_NUM_THREADS sets."""

    shadow_queue: int = Field(default=16, ge=1)
    """Served answers that wait for a rollout's candidate to answer beside them, shown to nobody; more are left out."""

    vllm_servers: list[Annotated[str, Field(pattern=URL)]] = Field(default_factory=list)
    """Addresses of vLLM servers that hold the base model in place of this process (JSON); driven by this process alone.
    `batch_rows` is then what each of them decodes at once."""
    vllm_api_key: SecretStr = SecretStr("")
    vllm_adapter_dir: Path | None = None
    """Folder for adapters that they read under the same path, this process's own; by default in `cache_dir`."""
    vllm_max_adapters: int = Field(default=16, ge=1)
    """Adapters a server: its --max-cpu-loras, less the neutral one."""
    vllm_neutral_adapter: bool = True
    """Whether an adapter of zeros answers for the base model, as vLLM on a CPU needs it (docs/vllm.md)."""
    vllm_copies: int = Field(default=1, ge=1)
    """Servers that hold each adapter."""
    vllm_reconcile: float = Field(default=5.0, gt=0)
    """Seconds between looks at what the servers hold."""
    vllm_tolerance: float = Field(default=0.02, gt=0)
    """How far their logits may be from those of float32: 0.02 for --dtype float32, 0.3 for bfloat16."""

    fallbacks: dict[str, str] = Field(default_factory=dict)
    """Family or adapter id → the model that may answer while it cannot serve (JSON)."""
    fallback_policy: Literal["request", "always"] = "request"
    """Whether a fallback is used only for requests that allow it, or for all. The response always names it."""

    event_buffer: int = Field(default=10_000, ge=1)
    """Events kept while the bus is unavailable; beyond it the oldest are dropped and counted."""
    publish_seconds: float = Field(default=1.0, ge=0)
    """The end of a response waits for so long at most until its events and recorded answers are on the bus; not at all
    while the bus is unavailable or many others are before them."""
    unrecorded_characters: int = Field(default=32 * 1024**2, ge=1)
    """Of answers, with their prompts, that wait to be recorded while bus or object store are unavailable; further ones
    are not recorded, and counted."""
    unrated_characters: int = Field(default=64 * 1024**2, ge=1)
    """Of answers that wait in this process for feedback, where a policy records what is rated; the oldest leave."""
    unrated_seconds: float = Field(default=86_400.0, gt=0)
    """How long each of them waits."""
    answer_texts_days: float = Field(default=7.0, ge=2)
    """How long texts of recorded answers over 256 KiB stay in the object store; their messages are kept for 2 days."""

    batch_file_bytes: int = Field(default=64 * 1024**2, ge=1024)
    """Of a file of /v1/files."""
    batch_lines: int = Field(default=10_000, ge=1)
    """Requests of one batch."""
    batch_line_bytes: int = Field(default=4 * 1024**2, ge=1024)
    """Of one of them."""
    batch_files: int = Field(default=200, ge=1)
    """Files that one caller (its token's subject) may have."""
    batch_stored_bytes: int = Field(default=1024**3, ge=1024)
    """Of all of them."""
    batches_per_domain: int = Field(default=16, ge=1)
    """Batches that have not ended, of the callers that reach a domain."""
    batch_concurrency: int = Field(default=6, ge=0)
    """Lines of batches that this process computes at once, while online requests leave rows free; 0 computes none."""
    batch_turn_seconds: float = Field(default=10.0, ge=0)
    """How long a line of a batch waits until it has a row though online requests wait, one line so often; 0: never."""
    batch_lease_seconds: float = Field(default=10.0, ge=1)
    """Seconds after which another replica takes up the batch of one that died."""
    batch_files_days: float = Field(default=30.0, gt=0, le=30)
    """How long files of batches are kept, unless their caller deletes them."""

    @field_validator("further_base_models")
    @classmethod
    def _named(cls, folders: dict[str, Path]) -> dict[str, Path]:
        for name in folders:
            if not name or name == "auto" or any(sign in name for sign in "+:@"):
                raise ValueError(f"{name!r} cannot name a base model: not 'auto', and without '+', ':' and '@'")
        return folders

    @property
    def base_folders(self) -> dict[str, Path]:
        """Name → folder of every base model, the default one first."""
        return {self.base_model_name or self.base_model.name: self.base_model} | self.further_base_models

    @property
    def batch_upload_bytes(self) -> int:
        """Of the request that uploads a file: a form around it."""
        return self.batch_file_bytes + 64 * 1024

    @property
    def vllm_slots(self) -> int:
        """Adapters that the vLLM servers hold together."""
        servers = len(self.vllm_servers)
        return self.vllm_max_adapters * servers // min(self.vllm_copies, max(1, servers))
