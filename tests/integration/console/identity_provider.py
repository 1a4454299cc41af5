"""An OpenID provider on loopback, by the documented flow: it signs everybody in who comes, and checks what a client sends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt

from fleet_kit.auth import LocalIssuer

CLIENT = "lorafleet-console"


@dataclass
class IdentityProvider:
    """`refusing` answers with access_denied; `codes` holds what is to be exchanged: code → (challenge, redirect)."""

    local: LocalIssuer
    url: str = ""
    refusing: bool = False
    names_itself: str = ""
    codes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def id_token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "sub": "ann", "iat": now, "exp": now + 300, "roles": ["Approver"]}
        kid = self.local.jwks()["keys"][0]["kid"]
        return jwt.encode(claims, self.local._key, algorithm="EdDSA", headers={"kid": kid})

    def answer(self, method: str, target: str, body: str) -> tuple[str, dict[str, str], str]:
        """Status, headers and body of a request."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match method, parts.path:
            case "GET", "/.well-known/openid-configuration":
                return "200 OK", {}, json.dumps({
                    "issuer": self.names_itself or self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/jwks",
                })  # fmt: skip
            case "GET", "/jwks":
                return "200 OK", {}, json.dumps(self.local.jwks())
            case "GET", "/authorize":
                assert (query["response_type"], query["client_id"]) == ("code", CLIENT)
                assert query["code_challenge_method"] == "S256"
                assert "openid" in query["scope"].split()
                back = {"state": query["state"], "iss": self.url}
                if self.refusing:
                    back["error"] = "access_denied"
                else:
                    back["code"] = secrets.token_urlsafe(16)
                    self.codes[back["code"]] = (query["code_challenge"], query["redirect_uri"])
                return "302 Found", {"Location": f"{query['redirect_uri']}?{urlencode(back)}"}, ""
            case "POST", "/token":
                return self._token({name: values[0] for name, values in parse_qs(body).items()})
        return "404 Not Found", {}, ""

    def _token(self, form: dict[str, str]) -> tuple[str, dict[str, str], str]:
        challenge, redirect = self.codes.pop(form["code"], ("", ""))
        made = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if form["grant_type"] != "authorization_code" or (made, form["redirect_uri"]) != (challenge, redirect):
            return "400 Bad Request", {}, json.dumps({"error": "invalid_grant"})
        token = self.id_token()
        return "200 OK", {}, json.dumps({"access_token": "opaque", "token_type": "Bearer", "id_token": token})


@asynccontextmanager
async def identity_provider(folder: Path) -> AsyncIterator[IdentityProvider]:
    provider = IdentityProvider(LocalIssuer.create(folder))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        lengths = [line.partition(":")[2] for line in head.lower().splitlines() if line.startswith("content-length:")]
        body = (await reader.readexactly(int(lengths[0]))).decode() if lengths else ""
        status, headers, answer = provider.answer(method, target, body)
        lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(answer)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join([*lines, "Connection: close"]) + "\r\n\r\n" + answer).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
