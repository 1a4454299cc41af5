"""Events of one loop, as the services say them."""

from fleet_cli.follow.lifecycle import EvaluationProgress, Happened, TrainingProgress
from fleet_events import v1

DIGEST = "ab" * 32
BLOB = v1.Blob(uri=f"s3://lorafleet/trainer/artifacts/{DIGEST}", sha256=DIGEST, bytes=10)
DATASET = v1.Dataset(dataset_id=DIGEST, blob=BLOB, samples=1247)
BASE = v1.BaseModel(name="SmolLM2-135M-Instruct", revision=DIGEST)
ARTIFACT = v1.Artifact(blob=BLOB, rank=16, alpha=32, target_modules=("q_proj",))
ADAPTER_ID = "tax-law-lora-v1.0.0"
ADAPTER = v1.Adapter(
    adapter_id=ADAPTER_ID,
    family="tax-law-lora",
    domain="tax-law",
    method="lora",
    version="1.0.0",
    base_model=BASE,
    artifact=ARTIFACT,
)
REQUEST = v1.TrainingRequested(job_id="job-1", domain="tax-law", method="lora", auto_approve_threshold=85)
STARTED = v1.TrainingStarted(
    job_id="job-1", domain="tax-law", dataset=DATASET, base_model=BASE, total_steps=40, attempt=1
)
COMPLETED = v1.TrainingCompleted(
    job_id="job-1",
    domain="tax-law",
    method="lora",
    base_model=BASE,
    dataset=DATASET,
    configuration="{}",
    configuration_sha256=DIGEST,
    checkpoint=BLOB,
    checkpoint_config=BLOB,
    artifact=ARTIFACT,
    report=BLOB,
    metrics={"train_loss": 0.42, "steps": 40.0, "train_seconds": 61.0},
)
REGISTERED = v1.AdapterRegistered(adapter=ADAPTER, revision=1, job_id="job-1")
SCORED = v1.EvaluationScored(
    evaluation_id="evaluation-1",
    adapter_id=ADAPTER_ID,
    domain="tax-law",
    artifact_sha256=DIGEST,
    golden_dataset_id="tax-law-golden-v1",
    golden_sha256=DIGEST,
    judge="reference-judge/1",
    score=87.5,
    ci_low=84.0,
    ci_high=91.0,
    confidence=0.95,
    pass_rate=0.9,
    pass_threshold=70,
    samples=20,
    passed=18,
    report=BLOB,
)
APPROVED = v1.Approved(
    adapter_id=ADAPTER_ID,
    family="tax-law-lora",
    domain="tax-law",
    artifact_sha256=DIGEST,
    revision=2,
    by="automated-pipeline",
    reason="score 87.5 is at or above the approve threshold 85",
)
ACTIVATED = v1.AdapterActivated(adapter=ADAPTER, revision=3, by="automated-pipeline")
REVIEW = v1.ReviewRequested(
    adapter_id=ADAPTER_ID, family="tax-law-lora", domain="tax-law", revision=2, reason="a human decides"
)
REJECTED = v1.Rejected(
    adapter_id=ADAPTER_ID, family="tax-law-lora", domain="tax-law", revision=2, by="policy", reason="score below 70"
)
TO_SCORE: list[Happened] = [STARTED, COMPLETED, REGISTERED, SCORED]


def progressed(step: int, job_id: str = "job-1") -> v1.TrainingProgressed:
    return v1.TrainingProgressed(job_id=job_id, domain="tax-law", step=step, total_steps=40, loss=1.5)


EVERYTHING: list[Happened] = [
    STARTED,
    progressed(10),
    TrainingProgress("job-1", 20, 40, {"loss": 1.2, "validation_loss": 1.3}),
    progressed(30),
    COMPLETED,
    REGISTERED,
    EvaluationProgress(ADAPTER_ID, 3, 20),
    SCORED,
    APPROVED,
    ACTIVATED,
]
