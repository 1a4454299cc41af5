"""How people are named in records: by keyed digests. Imports nothing of the database, for the build subprocess."""

import hashlib
import hmac


def digest_of(key: bytes, name: str) -> str:
    """HMAC-SHA-256 (RFC 2104) of a person's name, 64 hexadecimal digits."""
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()
