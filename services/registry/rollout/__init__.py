"""Progressive delivery: a candidate takes over from its family's active version step by step, or goes back."""
