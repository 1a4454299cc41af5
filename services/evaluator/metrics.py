"""The evaluator's own Prometheus metrics. `judge` is a name out of the settings, every other label of a closed set."""

from prometheus_client import Counter, Histogram

JUDGE_REQUESTS = Counter(
    "lorafleet_judge_requests_total",
    "Requests to language-model judges by outcome (answered, busy, refused, timeout, unreachable)",
    ["judge", "outcome"],
)
JUDGE_SECONDS = Histogram(
    "lorafleet_judge_request_seconds",
    "Time of one request to a judge",
    ["judge"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160),
)
JUDGE_TOKENS = Counter("lorafleet_judge_tokens_total", "Tokens by kind (prompt, answer)", ["judge", "kind"])
JUDGE_COST = Counter(
    "lorafleet_judge_cost_total", "What requests cost, in the currency of the judge's prices", ["judge"]
)
SAMPLES = Counter(
    "lorafleet_samples_judged_total", "Samples by their verdict (decided, undecided, unjudged)", ["judge", "verdict"]
)
LIVE_ANSWERS = Counter(
    "lorafleet_live_answers_judged_total", "Answers of rollouts that were to be judged (scored, unjudged)", ["outcome"]
)
