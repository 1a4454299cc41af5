"""Versions carried over to another base model, or to another revision of theirs (AS-9.1)."""
