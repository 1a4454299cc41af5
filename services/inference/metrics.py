"""Prometheus metrics of adapters at run time."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

SLOTS = Gauge("lorafleet_inference_slots_used", "Slots that hold an adapter", ["base_model", "state"])
ASKED = Counter(
    "lorafleet_inference_adapter_requests_total",
    "Leases asked for, by where the adapter was (slot, disk, store, failed)",
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
