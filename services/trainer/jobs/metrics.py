"""Prometheus metrics of this worker's training, beside the kit's."""

from prometheus_client import Counter, Gauge

from services.trainer.training.protocol import Stepped, Validated

STEPS = Counter("lorafleet_training_steps_total", "Optimizer steps taken by this worker")
TOKENS = Counter("lorafleet_training_tokens_total", "Tokens trained by this worker, without padding")
SECONDS = Counter("lorafleet_training_step_seconds_total", "Time that those steps took")
VALIDATIONS = Counter("lorafleet_training_validations_total", "Measures of a validation split by this worker")
LOSS = Gauge("lorafleet_training_loss", "Loss of the newest step of this worker's job")
VALIDATION_LOSS = Gauge("lorafleet_training_validation_loss", "Newest validation loss of this worker's job")
PEAK_MEMORY = Gauge("lorafleet_training_peak_memory_bytes", "Memory of this worker's training process at its highest")
STREAMS = Gauge("lorafleet_training_streams", "Readers of a job's course over server-sent events")


def observe_step(step: Stepped) -> None:
    """A step was taken."""
    STEPS.inc()
    TOKENS.inc(step.tokens)
    SECONDS.inc(step.seconds)
    LOSS.set(step.loss)
    PEAK_MEMORY.set(step.peak_memory_bytes)


def observe_validation(validated: Validated) -> None:
    """The validation split was measured."""
    VALIDATIONS.inc()
    VALIDATION_LOSS.set(validated.loss)
