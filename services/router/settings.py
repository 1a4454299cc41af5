"""Settings of the router."""

from pathlib import Path

from pydantic import Field

from fleet_kit.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    """What the router needs beyond what every service needs (environment prefix `LORAFLEET_`)."""

    port: int = 8104
    embedding_model: Path
    """Folder of a sentence-transformers model, for example all-MiniLM-L6-v2."""
    next_embedding_model: Path | None = None
    """Folder of another model, for example a multilingual one. Its vectors of everything are made in the background
    while `embedding_model` answers; then it answers. Once it does, make it `embedding_model`."""
    false_rejection: float = Field(default=0.025, gt=0, lt=0.5)
    """Part of an adapter's own queries that its calibrated threshold may turn away (see calibration.py)."""
    route_threshold: float = Field(default=0.42, ge=-1.0, le=1.0)
    """Cosine similarity from which an adapter counts as a match of which fewer than eight prompts are known.

    Chosen on CLINC150 (Larson et al. 2019) with all-MiniLM-L6-v2 and the best of an adapter's texts: each of the ten
    domains an adapter with 32 training prompts, queries from `val`, out-of-scope queries from `oos_val` and
    `oos_train`. The threshold that makes (share routed to the right adapter + share of out-of-scope queries refused)
    / 2 the largest was 0.41 on average over five draws of the prompts (0.44 with 60 prompts, 0.37 with 16).
    """
    description_threshold: float = Field(default=0.27, ge=-1.0, le=1.0)
    """The same for an adapter of which only a description is known. Chosen on the same data with a description of one
    sentence a domain: 77 % routed rightly, 60 % of the out-of-scope queries refused."""
    ambiguous_margin: float = Field(default=0.03, ge=0.0, le=2.0)
    """Adapters whose similarity is that close to the best one's are ambiguous: on the same data 3 % of the queries, of
    which the best one is right for 72 %, against 98 % of the others."""
    correction_days: int = Field(default=365, ge=1)
    """How long the router keeps what it was taught, with the text of the query."""
    routed_answer_days: int = Field(default=7, ge=3)
    """How long the vectors of a recorded answer's query wait for feedback, and such feedback for its answer.
    The bus keeps an answer for two days: what is forgotten is known for longer."""
    routed_answers: int = Field(default=100_000, ge=1)
    """How many of these are kept at most; the oldest leave first."""
    embedding_threads: int = Field(default=1, ge=1)
    search_threads: int = Field(default=2, ge=1)
    """Of the search in an index of more than 32,768 vectors, besides those of the embedding."""
