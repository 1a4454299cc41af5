"""Prometheus metrics of retraining rules."""

from prometheus_client import Counter

FIRED = Counter("lorafleet_retraining_fired_total", "Jobs that retraining rules requested, by trigger", ["trigger"])
SUPPRESSED = Counter(
    "lorafleet_retraining_suppressed_total", "Causes that led to no job, each counted once, by why not", ["why"]
)
FAULTS = Counter("lorafleet_retraining_faults_total", "Evaluations of a domain's rules that ended with a fault")
