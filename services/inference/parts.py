"""What inference needs beyond the kit, and the type under which handlers and endpoints get it."""

from dataclasses import dataclass

from fleet_kit.service import Service
from lora_core.embedding_thread import EmbeddingThread
from services.inference.base_models import BaseModels
from services.inference.batches.store import BatchStore
from services.inference.generation import Generator
from services.inference.http.drain import Gate
from services.inference.http.rate_limit import RateLimit
from services.inference.http.responses.store import ResponseStore
from services.inference.loading.cache import DiskCache
from services.inference.policies.preloading import Preloading
from services.inference.policies.watch import PressureWatch
from services.inference.projection import Projection
from services.inference.recording.recorder import Recorder
from services.inference.replicas.forwarding import Forwarding
from services.inference.settings import InferenceSettings


@dataclass(frozen=True, slots=True)
class InferenceParts:
    """The base models with their adapters, what generates with them, and what decides which are loaded."""

    hosting: BaseModels
    projection: Projection
    preloading: Preloading
    cache: DiskCache
    watch: PressureWatch
    gate: Gate
    generator: Generator
    recorder: Recorder
    forwarding: Forwarding
    embedder: EmbeddingThread | None
    rates: RateLimit
    responses: ResponseStore
    batches: BatchStore
    started: int


InferenceService = Service[InferenceSettings, InferenceParts]
