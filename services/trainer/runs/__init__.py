"""One execution of a training job: its place in the queue, its attempts, what it logs, its checkpoints."""
