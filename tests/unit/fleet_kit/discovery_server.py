"""Identity providers on loopback: a discovery document and a key set each, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import jwt

from fleet_kit.key_set import DISCOVERY

WRITERS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


@dataclass
class DiscoveryServer:
    """Answers for every provider: name → path of its issuer. Keys have the id `<provider>-<algorithm>`."""

    paths: Mapping[str, str]
    keys: Mapping[str, Any]
    url: str = ""
    reads: int = 0
    kids: dict[str, str] = field(default_factory=dict)
    """Further keys: id → algorithm."""
    changes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Provider → what its discovery document has instead."""

    @classmethod
    @asynccontextmanager
    async def serving(cls, paths: Mapping[str, str], keys: Mapping[str, Any]) -> AsyncIterator[Self]:
        made = cls(paths, keys)
        server = await asyncio.start_server(made._answer, "127.0.0.1", 0)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield made
        finally:
            server.close()

    def issuer(self, provider: str) -> str:
        """What tokens of the provider name as `iss`."""
        return self.url + self.paths[provider]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        self.reads += 1
        body = json.dumps(self._document(path)).encode()
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    def _document(self, path: str) -> dict[str, Any]:
        if path.startswith("/keys/"):
            return {"keys": self._keys(path.removeprefix("/keys/"))}
        provider = next(name for name, own in self.paths.items() if path == own + DISCOVERY)
        found = {"issuer": self.issuer(provider), "jwks_uri": f"{self.url}/keys/{provider}"}
        return found | self.changes.get(provider, {})

    def _keys(self, provider: str) -> list[dict[str, Any]]:
        own = {f"{provider}-{algorithm}": algorithm for algorithm in self.keys} | self.kids
        written = [
            # Entra names no algorithm, and its keys come with certificates.
            {**json.loads(WRITERS[alg].to_jwk(self.keys[alg].public_key())), "kid": kid, "use": "sig", "x5c": ["MII"]}
            for kid, alg in own.items()
        ]
        encrypting = {**written[0], "kid": "enc", "use": "enc", "alg": "RSA-OAEP"}  # Keycloak
        return [encrypting, *written]
