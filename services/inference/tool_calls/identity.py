"""Names of calls, by which their results refer to them."""

import secrets


def new_call_id() -> str:
    """Nine letters and digits: Mistral's templates take no others."""
    return secrets.token_hex(5)[:9]
