"""A service that is nothing but the kit's HTTP side: `python -m tests.integration.kit.http_service`."""

import os
import warnings
from pathlib import Path
from typing import Annotated

import structlog
from fastapi import Depends, FastAPI, Query, Request
from pydantic import BaseModel

from fleet_kit import http
from fleet_kit.auth import Caller, Verifier, require
from fleet_kit.http_limits import body_rule
from fleet_kit.http_server import serve
from fleet_kit.settings import ServiceSettings

Anybody = Annotated[Caller, Depends(require())]


class Settings(ServiceSettings):
    file_bytes: int = 8 << 20


class Note(BaseModel):
    text: str
    number: int = 0


def build(settings: Settings) -> FastAPI:
    app = FastAPI(title="Doors", version="1")
    app.state.name = "doors"
    app.state.verifier = Verifier(settings.jwks, settings.issuer)
    http.install(app, settings, lambda: {})

    @app.post("/v1/notes")
    async def note(body: Note, caller: Anybody) -> Note:
        return body

    @app.post("/v1/raw", openapi_extra=body_rule("file_bytes"))
    async def raw(request: Request, caller: Anybody) -> int:
        return len(await request.body())

    @app.put("/v1/files", openapi_extra=body_rule("file_bytes", "application/octet-stream"))
    async def put_file(request: Request, caller: Anybody) -> int:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return size

    @app.get("/v1/items/{name}")
    async def item(name: str, caller: Anybody, limit: Annotated[int, Query(ge=1, le=100)] = 1) -> str:
        return name

    @app.get("/v1/failing")
    async def fail(caller: Anybody, logged: str = "") -> None:
        structlog.get_logger().info("asked", logged=logged)
        warnings.warn(f"a warning\nof two lines {logged}", stacklevel=1)
        raise RuntimeError(f"broken\nby {logged}")

    @app.get("/memory")
    def memory(caller: Anybody) -> int:
        """The most memory that this process ever held, in kB."""
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

    return app


if __name__ == "__main__":
    os.environ.setdefault("LORAFLEET_NATS_URL", "nats://127.0.0.1:9")
    settings = Settings(s3_endpoint="http://127.0.0.1:9", s3_access_key="key", s3_secret_key="secret")  # type: ignore[call-arg, arg-type]
    serve(build(settings), settings)
