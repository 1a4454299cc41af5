"""Batches without padding: rows laid out as one sequence, and a model that computes them."""
