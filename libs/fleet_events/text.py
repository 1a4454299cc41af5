"""Text that every part of the fleet can store: PostgreSQL has no NUL, UTF-8 has no half surrogate pairs."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

__all__ = ["Text", "refuse_unstorable"]


def refuse_unstorable(value: str) -> str:
    """The text as it came.

    Raises:
        ValueError: it holds a NUL character or a lone surrogate; the message gives the place.
    """
    if "\x00" in value:
        raise ValueError(f"character {value.index(chr(0))} is NUL (U+0000), which text cannot hold; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise ValueError(
            f"character {error.start} is half of a surrogate pair (U+{code:04X}); send the whole character"
        ) from None
    return value


Text: TypeAlias = Annotated[str, AfterValidator(refuse_unstorable)]
"""A string field of anything that comes from outside."""
