"""A model hub on loopback that follows the API of huggingface.co: model info, resolve, ETags, LFS redirects, errors.

Source: https://huggingface.co/docs/hub/api, and what `huggingface_hub` 2.4 asks and reads.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

LFS_FROM = 1024
"""Bytes from which this hub keeps a file in LFS."""


@dataclass
class Repository:
    """Commits by name of branch or tag; `main` is there. token: of a private one. gated: nobody was let in."""

    revisions: dict[str, dict[str, bytes]]
    token: str = ""
    gated: bool = False

    def find(self, revision: str) -> dict[str, bytes] | None:
        return next((files for name, files in self.revisions.items() if revision in (name, sha(files))), None)


@dataclass
class HubServer:
    """`url` is the hub's, `storage` that of its large files. Faults: sent in place of the right thing."""

    url: str = ""
    storage: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Authorization) of every request."""
    redirect_to: str = ""
    """Where large files are said to lie, in place of `storage`."""
    spoiled: bytes = b""
    """What the storage sends for every file."""


def sha(files: dict[str, bytes]) -> str:
    """The commit of a tree: 40 hexadecimal digits."""
    return hashlib.sha1(json.dumps({name: _lfs(content) for name, content in files.items()}).encode()).hexdigest()


def _lfs(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running() -> Iterator[HubServer]:
    """The hub and its storage, each on a port of its own."""
    hub = HubServer()
    servers = []
    for name, answer in (("url", _answer_hub), ("storage", _answer_storage)):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, answer))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        setattr(hub, name, f"http://127.0.0.1:{server.server_address[1]}")
        servers.append(server)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


Answer = tuple[int, dict[str, str], bytes]


def _answer_hub(hub: HubServer, path: str, credential: str) -> Answer:
    info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
    resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    match = info or resolve
    repository = hub.repositories.get(match[1]) if match else None
    if match is None or repository is None or (repository.token and credential != f"Bearer {repository.token}"):
        # As the hub does it: who must not see a repository cannot tell that it is there.
        return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"
    if repository.gated:
        return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted"}, b"{}"
    files = repository.find(unquote(match[2] or "main"))
    if files is None:
        return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"{}"
    return _info(match[1], files) if info else _file(hub, files, unquote(match[3]))


def _info(name: str, files: dict[str, bytes]) -> Answer:
    siblings = []
    for path, content in files.items():
        entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": _blob(content)}
        if len(content) >= LFS_FROM:
            entry["lfs"] = {"sha256": _lfs(content), "size": len(content), "pointerSize": 134}
        siblings.append(entry)
    body = {
        "_id": "0",
        "id": name,
        "modelId": name,
        "sha": sha(files),
        "siblings": siblings,
        "tags": [],
        "private": False,
    }
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def _file(hub: HubServer, files: dict[str, bytes], path: str) -> Answer:
    content = files.get(path)
    commit = {"X-Repo-Commit": sha(files)}
    if content is None:
        return 404, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b""
    if len(content) < LFS_FROM:
        return 200, {**commit, "ETag": f'"{_blob(content)}"'}, content
    place = f"{hub.redirect_to or hub.storage}/lfs/{_lfs(content)}"
    linked = {"X-Linked-ETag": f'"{_lfs(content)}"', "X-Linked-Size": str(len(content)), "Location": place}
    return 302, {**commit, **linked, "ETag": f'"{_blob(content)}"'}, b""


def _answer_storage(hub: HubServer, path: str, _: str) -> Answer:
    trees = [tree for repository in hub.repositories.values() for tree in repository.revisions.values()]
    found = next((content for tree in trees for content in tree.values() if path == f"/lfs/{_lfs(content)}"), None)
    if found is None:
        return 404, {}, b""
    return 200, {"ETag": f'"{_lfs(found)}"'}, hub.spoiled or found


def _handler(hub: HubServer, answer: object) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            path, credential = urlparse(self.path).path, self.headers.get("Authorization", "")
            hub.requests.append((self.command, self.path, credential))
            status, headers, body = answer(hub, path, credential)  # type: ignore[operator]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = _respond

        def log_message(self, *_: object) -> None:
            pass

    return Handler
