"""Values that the registry's tests start from."""

import hashlib
from datetime import UTC, datetime, timedelta

from fleet_events import v1
from fleet_events.v1 import Bump, Method
from services.registry.family import Evaluation, Family, Submission, Training
from services.registry.policy import Comparison, Judgement
from services.registry.transition import Act
from services.registry.version import SemVer

START = datetime(2026, 1, 1, tzinfo=UTC)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def blob(name: str) -> v1.Blob:
    return v1.Blob(uri=f"s3://lorafleet/trainer/test/{digest(name)}", sha256=digest(name), bytes=7)


def act(by: str = "reviewer@example.org", minutes: int = 0, reason: str = "looked at it") -> Act:
    return Act(by, START + timedelta(minutes=minutes), reason)


def family() -> Family:
    return Family("tax-law", Method.LORA)


def training(job: str, data: str = "data", loss: float | None = None) -> Training:
    return Training(
        job_id=job,
        dataset=v1.Dataset(dataset_id=f"ds-{data}", blob=blob(data), samples=150),
        configuration='{"rank":16}',
        configuration_sha256=digest('{"rank":16}'),
        report=blob(f"report {job}"),
        metrics={"train_loss": 0.4} | ({} if loss is None else {"eval_loss": loss}),
        finished_at=START,
    )


def submission(
    name: str = "first",
    *,
    version: str | None = None,
    bump: Bump | None = None,
    base: str = "base",
    job: str | None = None,
    loss: float | None = None,
    data: str = "data",
    threshold: float | None = None,
    by: str = "trainer@example.org",
) -> Submission:
    return Submission(
        domain="tax-law",
        method=Method.LORA,
        base_model=v1.BaseModel(name="SmolLM2-135M-Instruct", revision=digest(base)),
        artifact=v1.Artifact(blob=blob(name), rank=16, alpha=32.0, target_modules=("q_proj", "v_proj")),
        checkpoint=blob(f"checkpoint {name}"),
        checkpoint_config=blob(f"config {name}"),
        by=by,
        version=SemVer.parse(version) if version else None,
        bump=bump,
        description="knows tax law",
        example_prompts=("When is the tax return due?",),
        auto_approve_threshold=threshold,
        training=training(job or f"job-{name}", data, loss),
    )


def evaluation(
    name: str = "first",
    score: float = 90.0,
    *,
    evaluation_id: str = "ev-1",
    minutes: int = 10,
    half_width: float = 3.0,
    regression: bool = False,
    against: str = "",
) -> Evaluation:
    """`against` is the version that it was compared with, as equals."""
    comparison = Comparison(against, 40, 0.0, -2.0, 2.0) if against else None
    low, high = max(0.0, score - half_width), min(100.0, score + half_width)
    return Evaluation(
        evaluation_id=evaluation_id,
        scored_at=START + timedelta(minutes=minutes),
        artifact_sha256=digest(name),
        golden_dataset_id="tax-law-golden-v1",
        golden_sha256=digest("golden"),
        judge="reference-judge/1",
        judgement=Judgement(score, low, high, regression, 40, comparison),
        pass_rate=0.9,
        pass_threshold=70.0,
        samples=40,
        passed=36,
        criteria={"accuracy": 9.0},
        report=blob("evaluation report"),
    )
