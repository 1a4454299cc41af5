"""Forgetting a person: request, work, proof."""
