"""A copy of an embedded fleet that runs, and a fleet made of such a copy."""
