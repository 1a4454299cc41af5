"""Parts of URL paths."""

from urllib.parse import quote


def path_segment(name: str) -> str:
    """One segment of a path: nothing that a user types may leave it."""
    # Dots alone would be taken out of the path as directories are, with the segment before them.
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")
