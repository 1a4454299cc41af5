"""Names of an adapter's further forms: `gguf`, `gguf-LEVEL`, `int8`, `int4`. Imports no torch."""

GGUF = "gguf"


def is_gguf(kind: str) -> bool:
    """Whether a form is a file for llama.cpp."""
    return kind.partition("-")[0] == GGUF


def level_of(kind: str) -> str | None:
    """llama.cpp's level of a form for it; None for the adapter's own numbers."""
    return kind.partition("-")[2] or None
