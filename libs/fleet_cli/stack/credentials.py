"""Keys, passwords and tokens of a fleet: made once at the first start, read again at every later one."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import nkeys

from fleet_cli.stack.certificates import Certificates, load_or_create_certificates
from fleet_cli.stack.home import Home, write_secret, write_secret_json
from fleet_events.topology import KEEPING_OBJECTS, SERVICES, STORING
from fleet_kit.auth import SCOPES, LocalIssuer

NATS_USERS = (*SERVICES, "upstream", "admin")
TOKEN_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)

# `candidates` permits requests to versions that are not approved: the evaluator alone has it.
TOKENS: dict[str, tuple[str, ...]] = {
    "admin": tuple(scope for scope in SCOPES if scope != "candidates"),
    "upstream": ("adapters:read", "train", "generate", "feedback"),
    "registry": ("adapters:read",),
    # `generate`: a generator of synthetic records calls the base model.
    "trainer": ("adapters:read", "generate"),
    "evaluator": ("adapters:read", "generate", "candidates"),
    "router": ("adapters:read",),
    "inference": ("adapters:read", "generate", "feedback"),
}


@dataclass(frozen=True)
class KeyPair:
    """An S3 access key."""

    access: str
    secret: str


@dataclass(frozen=True)
class Credentials:
    """Everything secret of one fleet."""

    issuer: LocalIssuer
    jwks: Path
    postgres: dict[str, str]
    """Role → password; `postgres` is the superuser."""
    s3: dict[str, KeyPair]
    """Identity → key; `admin` may do everything."""
    s3_internal: dict[str, str]
    """Signing keys between the parts of the object store."""
    nats_seeds: dict[str, Path]
    nats_public: dict[str, str]
    tokens: dict[str, Path]
    certificates: Certificates | None
    """None for a stack without TLS."""


def load_or_create(home: Home, *, tls: bool = False) -> Credentials:
    """The credentials of a home; what is missing is made, what is there is kept. Certificates only with `tls`."""
    kept = _secrets(home.keys / "secrets.json")
    try:
        issuer = LocalIssuer.open(home.keys)
    except FileNotFoundError:
        issuer = LocalIssuer.create(home.keys)
    seeds = {user: _seed(home.keys / f"nats-{user}.nk") for user in NATS_USERS}
    return Credentials(
        issuer=issuer,
        jwks=home.keys / "jwks.json",
        postgres=kept["postgres"],
        s3={name: KeyPair(**pair) for name, pair in kept["s3"].items()},
        s3_internal=kept["s3_internal"],
        nats_seeds=seeds,
        nats_public={user: _public(path) for user, path in seeds.items()},
        tokens={name: _token(home.tokens / name, name, scopes, issuer) for name, scopes in TOKENS.items()},
        certificates=load_or_create_certificates(home) if tls else None,
    )


def _secrets(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    _fill(known.setdefault("postgres", {}), ("postgres", *STORING), _password)
    _fill(
        known.setdefault("s3", {}),
        ("admin", *KEEPING_OBJECTS),
        lambda: {"access": secrets.token_hex(10), "secret": _password()},
    )
    _fill(known.setdefault("s3_internal", {}), ("volume", "volume_read", "filer", "filer_read"), _signing_key)
    write_secret_json(path, known)
    return known


def _fill(group: dict[str, Any], names: Iterable[str], make: Any) -> None:
    for name in names:
        if name not in group:
            group[name] = make()


def _password() -> str:
    return secrets.token_urlsafe(24)


def _signing_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def _seed(path: Path) -> Path:
    if not path.exists():
        write_secret(path, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode())
    return path


def _public(seed: Path) -> str:
    return str(nkeys.from_seed(seed.read_bytes().strip()).public_key.decode())


def _token(path: Path, subject: str, scopes: Iterable[str], issuer: LocalIssuer) -> Path:
    """The token file, minted again when it expires soon, or when its scopes or its issuer's key are no longer these."""
    wanted = tuple(scopes)
    if not path.exists() or not _good(path.read_text(), wanted, issuer):
        write_secret(path, issuer.mint(subject, wanted, ("*",), TOKEN_LIFE))
    return path


def _good(token: str, scopes: tuple[str, ...], issuer: LocalIssuer) -> bool:
    key = jwt.PyJWK.from_dict(issuer.jwks()["keys"][0])
    soon = _RENEW_BEFORE.total_seconds()
    try:
        # A negative leeway makes a token count as ended that much earlier.
        claims = jwt.decode(
            token, key, algorithms=["EdDSA"], leeway=-soon, options={"verify_aud": False, "verify_iat": False}
        )
    except jwt.PyJWTError:
        return False
    return str(claims.get("scope", "")).split() == list(scopes)
