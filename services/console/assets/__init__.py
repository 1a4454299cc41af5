"""Styles and scripts of the pages, each under a path that changes with its content.

`vendor/` holds files of npm packages as they were published; `vendor/packages.json` names them, with their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response

from fleet_kit.http_openapi import answers_with

__all__ = ["ASSETS", "Asset", "router"]

_FOLDER: Final = Path(__file__).parent
_MEDIA_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages refer to by `path`."""

    path: str
    content: bytes
    media_type: str


def _read() -> dict[str, Asset]:
    found = {}
    for file in sorted([*_FOLDER.iterdir(), *(_FOLDER / "vendor").iterdir()]):
        if media_type := _MEDIA_TYPES.get(file.suffix):
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:16]
            found[file.name] = Asset(f"/console/assets/{digest}/{file.name}", content, media_type)
    return found


ASSETS: Final = _read()
"""By file name."""
router = APIRouter(include_in_schema=False)


def _answer(asset: Asset) -> Callable[[], Response]:
    # Not a coroutine only because FastAPI would not care; there is nothing to wait for.
    def answer() -> Response:
        return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": _FOREVER})

    return answer


for _asset in ASSETS.values():
    router.get(_asset.path, response_class=Response, responses=answers_with(_asset.media_type))(_answer(_asset))
