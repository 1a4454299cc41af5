"""Several processes that serve the same base models: what each holds, and which of them answers."""
