"""Settings of the router."""

from pathlib import Path

from pydantic import Field

from fleet_kit.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    """What the router needs beyond what every service needs (environment prefix ``LORAFLEET_``)."""

    port: int = 8104
    embedding_model: Path
    """Folder of a sentence-transformers model, for example all-MiniLM-L6-v2."""
    route_threshold: float = Field(default=0.42, ge=-1.0, le=1.0)
    """Cosine similarity from which an adapter counts as a match.

    Chosen on CLINC150 (Larson et al. 2019) with all-MiniLM-L6-v2 and this router's own rule, the best of an
    adapter's texts: each of the ten domains an adapter with 32 training prompts (an adapter carries at most
    64), queries from `val`, out-of-scope queries from `oos_val` and `oos_train`. The threshold that makes
    (share routed to the right adapter + share of out-of-scope queries refused) / 2 the largest was
    0.41 on average over five draws of the prompts (0.44 with 60 prompts, 0.37 with 16). On `test`, which was
    not looked at for the choice, it routed 79 % of the queries rightly and refused 78 % of the out-of-scope ones.
    """
    embedding_threads: int = Field(default=1, ge=1)
