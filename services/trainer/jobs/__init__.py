"""The work on one training job: choose its data, attempt it until done, keep its checkpoints, end it."""
