"""Records what the clients send: `python -m tests.clients.record`, with their environments in the working folder.

They talk to inference's routes on a scripted back end; each body that comes is kept, once, with the client's version.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.clients.programs import CLIENTS
from tests.unit.inference.surface import HERMES, MODEL, application, byte_tokenizer

RECORDED = Path(__file__).parents[1] / "fixtures" / "clients.json"
ANSWER = '```json\n{"name": "Ann"}\n```'
"""What the back end says where a request sets no form: instructor reads JSON in it."""


class Recording:
    """ASGI middleware that keeps each request's path and body, and the answer's status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""

        async def received() -> Message:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and body:
                request = {"path": scope["path"], "status": message["status"], "body": json.loads(body)}
                if request not in self.requests:
                    self.requests.append(request)
            await send(message)

        await self._app(scope, received, sent)


def main() -> None:
    """Write the bodies of every client."""
    tokenizer = byte_tokenizer(HERMES)
    ids = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    recording = Recording(application(ids, tokenizer=tokenizer, obedient=True)[0])
    server = uvicorn.Server(uvicorn.Config(recording, port=0, log_level="warning", lifespan="off"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for client in CLIENTS:
            recording.requests = []
            result = client.run(
                Path.cwd(),
                BASE_URL=f"http://127.0.0.1:{port}/v1",
                API_KEY="none",
                MODEL=MODEL,
                CALLER=MODEL,
                SENTENCES="sentences",
                DIMENSIONS="2",
                QUESTION="When is high tide?",
                TOKENS="64",
                TOKENIZER=folder,
                LIKELIEST=" Noon.",
                WRITES_JSON="1",
            )
            found[client.name] = {"client": result["client"], "requests": recording.requests}
            print(json.dumps(result), file=sys.stderr)
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
