"""Settings of the trainer: those of its wings, each declared where it is read."""

from services.trainer.retraining.settings import RetrainingSettings


class TrainerSettings(RetrainingSettings):
    """What the trainer needs beyond what every service needs (environment prefix `LORAFLEET_`)."""

    port: int = 8102
