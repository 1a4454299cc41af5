"""Uploads of adapters over HTTP, as `POST /v1/adapters` takes them."""

from pathlib import Path

import httpx

Files = list[tuple[str, tuple[str, bytes, str]]]


def files_of(folder: Path) -> Files:
    return [
        ("files", (file.name, file.read_bytes(), "application/octet-stream"))
        for file in sorted(folder.iterdir())
        if file.is_file()
    ]


async def upload(client: httpx.AsyncClient, folder: Path, **fields: str) -> httpx.Response:
    return await client.post("/v1/adapters", data=fields, files=files_of(folder))
