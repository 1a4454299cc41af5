"""Prometheus metrics of adapters at run time, of tokens and of chat templates.

Every label has a closed set of values, so that no request can add a series; adapter ids are there only by setting, and
no more than `TokenCounts.MOST_IDS` of them.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

SLOTS = Gauge("lorafleet_inference_slots_used", "Slots that hold an adapter", ["base_model", "state"])
SLOT_MEMORY = Gauge(
    "lorafleet_inference_slot_memory_fraction", "Of the memory of slots, what adapters take", ["base_model"]
)
LEASES_REQUESTED = Counter(
    "lorafleet_inference_adapter_requests_total",
    "Leases requested, by where the adapter was (slot, disk, store, failed)",
    ["base_model", "found"],
)
LOADED = Counter("lorafleet_inference_adapter_loads_total", "Adapters brought into a slot", ["base_model"])
FAILED = Counter("lorafleet_inference_adapter_failures_total", "Adapters that failed to load", ["base_model", "code"])
UNLOADED = Counter("lorafleet_inference_adapter_unloads_total", "Adapters that left a slot", ["base_model", "reason"])
LOAD_SECONDS = Histogram(
    "lorafleet_inference_adapter_load_seconds",
    "From disk into a slot, proof included",
    ["base_model"],
    buckets=_SECONDS,
)
WAIT_SECONDS = Histogram(
    "lorafleet_inference_adapter_wait_seconds", "How long requests waited for a lease", ["base_model"], buckets=_SECONDS
)
CACHE = Counter("lorafleet_inference_disk_cache_total", "Artifacts found on disk (hit) or fetched (miss)", ["outcome"])
ROWS_FAILED = Counter(
    "lorafleet_inference_rows_failed_total",
    "Answers that the engine could not give, by where: start and step are one row's own fault, engine is the engine's",
    ["step"],
)
PREDICTIONS = Counter(
    "lorafleet_inference_predictions_total",
    "Predicted adapters, by whether the next request of the same caller was for one (hit) or not (miss)",
    ["outcome"],
)
PRESSURE = Gauge("lorafleet_inference_memory_pressure", "0 low, 1 medium, 2 high, 3 critical")
MEMORY_SHARE = Gauge("lorafleet_inference_memory_share", "Used share of the tightest memory limit")
TOKENS = Counter(
    "lorafleet_inference_tokens_total",
    "Tokens of prompts and completions, by who answered (base, adapter, mix)",
    ["kind", "answered_by", "adapter_id"],
)
PREFIX_TOKENS = Counter(
    "lorafleet_inference_prefix_tokens_total",
    "Prompt tokens that were looked for among kept beginnings, by whether they were there (hit) or were read (miss)",
    ["base_model", "outcome"],
)
TEMPLATE_LIMITS = Counter(
    "lorafleet_inference_template_limits_total",
    "Conversations that a chat template was not rendered for, by what it took too much of (time, memory, text)",
    ["limit"],
)


FIRST_TOKEN_SECONDS = Histogram(
    "lorafleet_inference_first_token_seconds",
    "From a prompt that was read to the first token of its answer: adapter, queue and prompt",
    ["base_model"],
    buckets=_SECONDS,
)
TOKEN_GAP_SECONDS = Histogram(
    "lorafleet_inference_token_gap_seconds",
    "Between two tokens of an answer",
    ["base_model"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5),
)
QUEUE_SECONDS = Histogram(
    "lorafleet_inference_queue_seconds", "How long answers waited for a row of the engine", buckets=_SECONDS
)
ROWS = Gauge(
    "lorafleet_inference_rows",
    "Answers that are computed (running), or wait for it",
    ["base_model", "state"],
)
ROWS_MOST = Gauge("lorafleet_inference_rows_limit", "Answers that are computed together at most", ["base_model"])
PREFIX_BYTES = Gauge(
    "lorafleet_inference_prefix_bytes", "Keys and values of prompts' beginnings that are kept", ["base_model"]
)


def count_prefix(base_model: str, found: int, wanted: int) -> None:
    """One look-up: tokens of a prompt that were found, and all of them."""
    PREFIX_TOKENS.labels(base_model, "hit").inc(found)
    PREFIX_TOKENS.labels(base_model, "miss").inc(wanted - found)


AnsweredBy = Literal["base", "adapter", "mix"]


@dataclass(slots=True)
class TokenCounts:
    """Counts tokens: all together, or by who answered; adapters by their ids only where `ids` are wanted."""

    MOST_IDS: ClassVar[int] = 1000
    """Adapter ids with a series of their own; those that come later share the series `other`."""

    by_answer: bool
    ids: bool
    _labelled: set[str] = field(default_factory=set)

    def count(self, answered_by: AnsweredBy, adapter_id: str, *, prompt: int, completion: int) -> None:
        """Counts one answer; `adapter_id` is empty for the base model."""
        who, which = (answered_by, self._label(adapter_id)) if self.by_answer else ("", "")
        TOKENS.labels("prompt", who, which).inc(prompt)
        TOKENS.labels("completion", who, which).inc(completion)

    def _label(self, adapter_id: str) -> str:
        if not (self.ids and adapter_id):
            return ""
        if adapter_id not in self._labelled:
            if len(self._labelled) >= self.MOST_IDS:
                return "other"
            self._labelled.add(adapter_id)
        return adapter_id
