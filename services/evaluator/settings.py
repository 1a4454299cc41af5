"""Settings of the evaluator."""

from pydantic import Field

from fleet_kit.settings import ServiceSettings

__all__ = ["EvaluatorSettings"]


class EvaluatorSettings(ServiceSettings):
    """What judging needs beyond what every service needs (environment prefix ``LORAFLEET_``)."""

    port: int = 8103
    inference_url: str
    """Where answers, embeddings and likelihoods come from: any server with the OpenAI-compatible endpoints."""
    base_model_name: str
    """Model whose likelihoods are taken for an adapter that does not say its base model."""
    embedding_model_name: str = "all-MiniLM-L6-v2"
    """`model` of /v1/embeddings."""

    concurrency: int = Field(default=8, ge=1, le=256)
    """Samples in flight at once."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens. One that is longer is cut, judged as it is, and counted in `cut_answers`."""
    pass_threshold: float = Field(default=70.0, ge=0, le=100)
    """Overall score from which a sample counts as passed (LA-3.3)."""
    ready_seconds: float = Field(default=600.0, gt=0)
    """How long an adapter may be unknown to inference, or loading, before its evaluation has failed."""
    retry_seconds: float = Field(default=2.0, gt=0)
    """Pause before inference is asked again."""
    request_timeout: float = Field(default=180.0, gt=0)
    """Seconds one request to inference may take."""
