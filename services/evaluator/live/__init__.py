"""Live answers of rollouts: a sample of those that are recorded is judged as they come."""
