"""Parts of URL paths."""

from urllib.parse import quote


def path_segment(name: str) -> str:
    """One segment of a path: nothing that a user types may leave it."""
    return quote(name, safe="")
