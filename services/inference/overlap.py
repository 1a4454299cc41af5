"""How far the end of a text may be the beginning of a mark that comes in pieces."""


def overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text the mark may begin with, the whole mark not counted."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-size:])), 0)
