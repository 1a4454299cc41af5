"""Prometheus metrics of the kit; a service adds its own beside them."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CERTIFICATE_EXPIRY",
    "CONSUMER_LAG",
    "DEAD_LETTERS",
    "EVENTS_HANDLED",
    "EVENT_SECONDS",
    "HTTP_SECONDS",
    "OUTBOX_REFUSED",
    "OUTBOX_WAITING",
    "STREAM_FILL",
]

EVENTS_HANDLED = Counter(
    "lorafleet_events_handled_total",
    "Deliveries by consumer and outcome (done, duplicate, retry, dead)",
    ["consumer", "outcome"],
)
EVENT_SECONDS = Histogram("lorafleet_event_seconds", "Time to handle a delivery", ["consumer"])
OUTBOX_WAITING = Gauge(
    "lorafleet_outbox_waiting", "Events in the outbox that JetStream has not acknowledged", ["service"]
)
OUTBOX_REFUSED = Counter(
    "lorafleet_outbox_refused_total", "Events that JetStream refused for good, now dead letters", ["service"]
)
STREAM_FILL = Gauge("lorafleet_stream_fill_ratio", "Share of its room that a stream has used", ["stream"])
CERTIFICATE_EXPIRY = Gauge(
    "lorafleet_certificate_expiry_timestamp_seconds",
    "Unix time at which this process's certificate ends; 0: it has none",
)
CONSUMER_LAG = Gauge(
    "lorafleet_consumer_lag", "Messages that a durable has not acknowledged: waiting and under way", ["consumer"]
)
DEAD_LETTERS = Gauge("lorafleet_dead_letters", "Dead letters that are kept")
HTTP_SECONDS = Histogram(
    "lorafleet_http_seconds",
    # Every label is out of a closed set: what a stranger sends must not make a series.
    "Time to answer a request by method (or other), route template (or unmatched) and class of status (or gone)",
    ["method", "route", "status"],
)
