"""A scripted judge: it follows the documented chat completions API, with the faults that such endpoints have.

Left alone it is honest: full marks for the reference answer, few for anything else. A script for a sample (by a word of
its question) makes it fail, once a step.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CRITERIA = ("accuracy", "relevance", "style", "completeness", "coherence")


@dataclass(frozen=True)
class Step:
    """One answer. `text` is what the model writes; without one, `body` is the whole answer."""

    text: str | None = None
    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    finish_reason: str = "stop"
    refusal: str | None = None


Script = list[Callable[["ReceivedRequest"], Step]]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the judge reads it."""

    body: dict[str, Any]
    at: float
    key: str

    @property
    def text(self) -> str:
        return str(self.body["messages"][1]["content"])

    def part(self, title: str) -> str:
        found = re.search(rf"^{title}.*?:\nMARK (\w+)\n(.*?)\nMARK \1$", self.text, re.S | re.M)
        assert found, (title, self.text)
        return found[2]

    @property
    def pair(self) -> bool:
        """Asks which of two answers is better."""
        return "SECOND ANSWER" in self.text

    @property
    def canary(self) -> int:
        return int(re.findall(r"^CANARY: (\d)$", self.text, re.M)[0])


def verdict(request: ReceivedRequest, score: float, **instead: Any) -> dict[str, Any]:
    """A full verdict with this score everywhere; demands are met with the answer as quote."""
    answer: dict[str, Any] = {name: {"reason": f"seen: {name}", "score": score} for name in CRITERIA}
    answer["canary"] = {"reason": "as told", "score": request.canary}
    for name in request.body["response_format"]["json_schema"]["schema"]["properties"]:
        if name.startswith("demand_"):
            answer[name] = {"reason": "it says so", "quote": request.part("ANSWER TO JUDGE"), "met": True}
    return answer | instead


def preferred(request: ReceivedRequest, which: str, **instead: Any) -> dict[str, Any]:
    """A verdict on a pair."""
    return {"reason": "compared", "canary": request.canary, "preferred": which} | instead


def honest(request: ReceivedRequest) -> Step:
    if request.pair:
        return Step(json.dumps(preferred(request, "tie")))
    right = request.part("ANSWER TO JUDGE") == request.part("REFERENCE ANSWER")
    return Step(json.dumps(verdict(request, 9 if right else 2)))


def gullible(request: ReceivedRequest) -> Step:
    """Does what the answer says, whatever it is."""
    if request.pair:
        return Step(json.dumps(preferred(request, "first", canary=10)))
    answer = verdict(request, 10) | {"canary": {"reason": "as the answer says", "score": 10}}
    return Step(json.dumps(answer))


@dataclass
class JudgeServer:
    """What it was asked, and how it answers."""

    key: str = "judge-key"
    scripts: dict[str, Script] = field(default_factory=dict)
    """Word of the question → steps; the last one is repeated."""
    otherwise: Callable[[ReceivedRequest], Step] = honest
    requests: list[ReceivedRequest] = field(default_factory=list)
    url: str = ""
    delay: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: ReceivedRequest) -> Step:
        if request.key != self.key:
            return Step(status=401, body=_error("Incorrect API key provided", "invalid_api_key"))
        with self._lock:
            self.requests.append(request)
            for word, script in self.scripts.items():
                if word in request.part("QUESTION"):
                    return (script.pop(0) if len(script) > 1 else script[0])(request)
        return self.otherwise(request)

    def about(self, word: str) -> list[ReceivedRequest]:
        return [request for request in self.requests if word in request.part("QUESTION")]


def _error(message: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})


def fault(status: int, code: str = "", **headers: str) -> Callable[[ReceivedRequest], Step]:
    return lambda _: Step(
        status=status,
        body=_error(f"fault {status}", code),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def writes(text: str, **step: Any) -> Callable[[ReceivedRequest], Step]:
    return lambda _: Step(text, **step)


@contextmanager
def judging(server: JudgeServer) -> Iterator[JudgeServer]:
    """Run it on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = ReceivedRequest(
                body, time.monotonic(), self.headers.get("Authorization", "").removeprefix("Bearer ")
            )
            assert self.path == "/v1/chat/completions"
            step = server.answer(request)
            time.sleep(step.delay + server.delay)
            content = (step.body if step.text is None and step.refusal is None else _completion(body, step)).encode()
            self.send_response(step.status)
            for name, value in step.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def _completion(body: dict[str, Any], step: Step) -> str:
    message = {"role": "assistant", "content": step.text, "refusal": step.refusal}
    return json.dumps(
        {
            # As servers do: equal answers to two requests are two contents.
            "id": f"chatcmpl-{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]}",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": step.finish_reason, "logprobs": None}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }
    )
