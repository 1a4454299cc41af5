"""A server that speaks inference's OpenAI-compatible protocol and answers from a table, so that tests say what is judged.

Its embeddings are hashed words and its likelihoods a constant: what the real models say is recorded in the unit
tests and asked for in the e2e tests. Who answers, and whether, can be changed while it runs.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WIDTH = 256


@dataclass
class ModelServer:
    """What it serves, and what it was asked."""

    base_model: str
    adapters: dict[str, str] = field(default_factory=dict)
    """Adapter id → digest of the artifact that it says has answered."""
    answers: dict[tuple[str, str], str] = field(default_factory=dict)
    """(adapter id, prompt) → answer; others get "I do not know."."""
    answers_as: dict[str, str] = field(default_factory=dict)
    """Adapter id → who it says has answered instead; "" is the base model."""
    refuse: dict[str, int] = field(default_factory=dict)
    """Adapter id → status of every answer, for example 503."""
    delay: float = 0.0
    token: str = ""
    """Bearer token that a candidate needs."""
    questions: Counter[tuple[str, str]] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[tuple[str, Any]] = field(default_factory=list)
    """(path, headers) of every request."""
    computes_batches: bool = False
    """Whether it has /v1/files and /v1/batches."""
    holds_batches: bool = False
    """Their lines are computed once it does not."""
    refuses_in_batches: set[str] = field(default_factory=set)
    """Ids of lines that are refused there."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def chat(self, body: dict[str, Any], token: str) -> tuple[int, dict[str, Any]]:
        model, prompt = body["model"], body["messages"][-1]["content"]
        with self._lock:
            self.questions[model, prompt] += 1
            self.bodies.append(body)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.delay)
        with self._lock:
            self.at_once -= 1
        if model in self.refuse:
            return self.refuse[model], _error(f"{model} is refused by the test")
        if model not in self.adapters or token != self.token:
            return 404, _error(f"model {model!r} does not exist or you have no access to it")
        answered = self.answers_as.get(model, model)
        text = self.answers.get((model, prompt), "I do not know.")
        return 200, {
            "id": f"gen-{hashlib.sha256((model + prompt).encode()).hexdigest()[:12]}",
            "object": "chat.completion",
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
            ],
            "lorafleet": {
                "adapter_id": answered or None,
                "artifact_sha256": self.adapters[model] if answered else None,
                "base_model": self.base_model,
            },
        }

    def aside(self, method: str, path: str, content: bytes, token: str) -> tuple[int, bytes]:
        """Files, batches and models of the Batch API: a batch is computed when it is looked at."""
        kind, _, rest = path.removeprefix("/v1/").partition("/")
        name, _, action = rest.partition("/")
        with self._lock:
            match method, kind, action:
                case "POST", "files", "":
                    file_id = f"file-{len(self.files)}-{len(self.batches)}"
                    lines = [line for line in content.splitlines() if line.startswith(b'{"custom_id"')]
                    self.files[file_id] = b"\n".join(lines)
                    return 200, json.dumps({"id": file_id}).encode()
                case "GET", "files", "content" if name in self.files:
                    return 200, self.files[name]
                case "DELETE", "files", "" if name in self.files:
                    del self.files[name]
                    return 200, b"{}"
                case "POST", "batches", "":
                    body = json.loads(content)
                    batch_id = f"batch_{len(self.batches)}"
                    given = {"metadata": body["metadata"], "input_file_id": body["input_file_id"]}
                    times = {"created_at": int(time.time()), "in_progress_at": int(time.time())}
                    self.batches[batch_id] = {"id": batch_id, "status": "in_progress", **given, **times}
                    return 200, json.dumps(self.batches[batch_id]).encode()
                case "GET", "batches", "" if name in self.batches:
                    batch = self.batches[name]
                case "GET", "batches", "" if not name:
                    return 200, json.dumps({"data": list(self.batches.values())[::-1], "has_more": False}).encode()
                case "GET", "models", "" if name in self.adapters:
                    return 200, b"{}"
                case _:
                    return 404, json.dumps(_error(f"no {path}")).encode()
        if batch["status"] == "in_progress" and not self.holds_batches:
            self._compute(batch, token)
        return 200, json.dumps(batch).encode()

    def _compute(self, batch: dict[str, Any], token: str) -> None:
        answered = []
        for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
            if line["custom_id"] in self.refuses_in_batches:
                continue
            status, body = self.chat(line["body"], token)
            response = {"status_code": status, "request_id": "r", "body": body}
            answered.append(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}))
        batch["output_file_id"] = f"out-{batch['id']}"
        self.files[batch["output_file_id"]] = "\n".join(answered).encode()
        batch |= {"status": "completed"}

    def completion(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        adapter = body["model"] if body["model"] in self.adapters else None
        if body["model"] != self.base_model and adapter is None:
            return 404, _error(f"model {body['model']!r} does not exist")
        assert body["max_tokens"] == 0
        assert body["echo"] is True
        found = list(re.finditer(r"\s*\S+", body["prompt"]))
        values = [None, *[-2.5] * (len(found) - 1)]
        logprobs = {
            "tokens": [m[0] for m in found],
            "token_logprobs": values,
            "text_offset": [m.end() - len(m[0].strip()) for m in found],
            "top_logprobs": None,
        }
        return 200, {
            "id": "cmpl-1",
            "object": "text_completion",
            "choices": [{"index": 0, "text": body["prompt"], "finish_reason": "length", "logprobs": logprobs}],
            "lorafleet": {"adapter_id": adapter, "artifact_sha256": None, "base_model": self.base_model},
        }

    def embeddings(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["model"] != "all-MiniLM-L6-v2":
            return 404, _error(f"embedding model {body['model']!r} does not exist")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [{"object": "embedding", "index": i, "embedding": _vector(text)} for i, text in enumerate(texts)]
        return 200, {"object": "list", "model": body["model"], "data": data}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _vector(text: str) -> list[float]:
    vector = [0.0] * WIDTH
    for word in re.findall(r"\w+", text.lower()):
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % WIDTH] += 1.0
    return vector


@contextmanager
def serving(server: ModelServer) -> Iterator[ModelServer]:
    """Run it on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.command != "POST" or self.path.startswith(("/v1/files", "/v1/batches")):
                path = self.path.partition("?")[0]
                aside = server.aside(self.command, path, sent, token) if server.computes_batches else (404, b"{}")
                self._send(*aside)
                return
            body = json.loads(sent)
            server.headers.append((self.path, self.headers))
            match self.path:
                case "/v1/chat/completions":
                    status, answer = server.chat(body, token)
                case "/v1/completions":
                    status, answer = server.completion(body)
                case "/v1/embeddings":
                    status, answer = server.embeddings(body)
                case _:
                    status, answer = 404, _error("no such endpoint")
            self._send(status, json.dumps(answer).encode())

        do_GET = do_DELETE = do_POST

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
