"""A server with the part of vLLM's HTTP API that the fleet uses, for tests: the same paths, fields, statuses and words.

It answers with transformers and the weights of the folder that it was told to load, so that a wrong or stale folder shows.
`stop` drops every connection, as a killed process does; `start` begins with no adapters, as a new process does.
Written after vLLM 0.32: entrypoints/openai/completion, entrypoints/openai/models, entrypoints/serve/lora.
"""

from __future__ import annotations

import asyncio
import copy
import json
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from safetensors.torch import load_file
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class VllmServer:
    """`base`: the model itself. `on_cpu`: with that platform's fault. `delay`: seconds a streamed token takes. `requested`: models that completions were asked of, `bodies`: how. `cancelled`: streams
    that the client left."""

    base: Any
    name: str
    max_lora_rank: int = 16
    max_model_len: int = 512
    api_key: str = ""
    delay: float = 0.0
    on_cpu: bool = True
    requested: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    adapters: dict[str, str] = field(default_factory=dict)
    _models: dict[str, Any] = field(default_factory=dict)
    _at_adapters: int = 0
    _port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts it, always on the same port; nothing where it is up."""
        if self._server is not None:
            return
        self._models = {self.name: self.base}
        if not self._port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._guarded(self._app()), host="127.0.0.1", port=self._port, log_level="warning", lifespan="off"
            )
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            threading.Event().wait(0.01)

    def stop(self) -> None:
        """Ends it at once; who is connected is cut off."""
        if self._server is None or self._thread is None:
            return
        loop = self._server.servers[0].get_loop()

        async def cut(server: uvicorn.Server = self._server) -> None:
            for listening in server.servers:
                for one in listening.sockets:
                    loop.remove_reader(one.fileno())
            # What is accepted already becomes a connection. One that asyncio meets after its server was closed stays
            # open without an owner, and its client would wait for an answer.
            for _ in range(10):
                await asyncio.sleep(0)
            for listening in server.servers:
                listening.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            server.force_exit = server.should_exit = True

        asyncio.run_coroutine_threadsafe(cut(), loop).result()
        self._thread.join()
        self._server = self._thread = None
        self.adapters.clear()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _merged(self, folder: Path) -> Any:
        """The base model with an adapter's PEFT checkpoint added to its weights.

        Not by PEFT: neither it nor `from_pretrained` may run in two threads, and the tests use both in theirs.
        """
        config = json.loads((folder / "adapter_config.json").read_text())
        model = copy.deepcopy(self.base)
        tensors = load_file(folder / "adapter_model.safetensors")
        for key in tensors:
            if key.endswith(".lora_A.weight"):
                module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                delta = tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
                model.get_parameter(f"{module}.weight").data += config["lora_alpha"] / config["r"] * delta
        return model

    def _guarded(self, app: FastAPI) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            given = Headers(scope=scope).get("authorization")
            if self.api_key and scope["path"].startswith("/v1") and given != f"Bearer {self.api_key}":
                await JSONResponse({"error": "Unauthorized"}, status_code=401)(scope, receive, send)
            else:
                await app(scope, receive, send)

        return guarded

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def _health() -> Response:
            return Response()

        @app.get("/v1/models")
        async def _list() -> dict[str, Any]:
            base = {"id": self.name, "object": "model", "root": self.name, "parent": None}
            data = [{**base, "max_model_len": self.max_model_len}]
            for name, folder in self.adapters.items():
                data.append({"id": name, "object": "model", "root": folder, "parent": self.name, "max_model_len": None})
            return {"object": "list", "data": data}

        @app.post("/v1/load_lora_adapter")
        async def _load(request: Request) -> Response:
            body = await request.json()
            name, folder = body["lora_name"], body["lora_path"]
            if name in self.adapters:
                return _error(
                    400,
                    f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                    "'load_inplace' to True.",
                    "InvalidUserInput",
                )
            if not (Path(folder) / "adapter_config.json").is_file():
                return _error(404, f"Loading lora {name} failed: No adapter found for <path>", "NotFoundError")
            config = json.loads((Path(folder) / "adapter_config.json").read_text())
            refusals = []
            if config.get("use_dora"):
                refusals.append("vLLM does not yet support DoRA.")
            rank = max([config["r"], *config.get("rank_pattern", {}).values()])
            if rank > self.max_lora_rank:
                refusals.append(f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}.")
            if refusals:
                return _error(500, f"Call to add_lora method failed: {' '.join(refusals)}", "InternalServerError")
            self._models[name] = self._merged(Path(folder))
            self.adapters[name] = folder
            return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

        @app.post("/v1/unload_lora_adapter")
        async def _unload(request: Request) -> Response:
            name = (await request.json())["lora_name"]
            if name not in self.adapters:
                return _error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
            del self.adapters[name], self._models[name]
            return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

        @app.post("/v1/completions")
        async def _complete(request: Request) -> Response:
            body = await request.json()
            name, prompt = body["model"], body["prompt"]
            self.requested.append(name)
            self.bodies.append(body)
            if name not in self._models:
                return _error(404, f"The model `{name}` does not exist.", "NotFoundError", "model")
            if len(prompt) + body["max_tokens"] > self.max_model_len:
                return _error(
                    400, f"This model's maximum context length is {self.max_model_len} tokens.", "BadRequestError"
                )
            chunks = self._chunks(name, body)
            if body.get("stream"):
                return StreamingResponse(self._events(name, chunks), media_type="text/event-stream")
            whole = [chunk async for chunk in chunks]
            choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": whole[-1]["finish_reason"]}
            if body.get("logprobs") is not None:
                parts = [chunk["logprobs"] for chunk in whole]
                choice["logprobs"] = {key: [one for part in parts for one in part[key]] for key in parts[0]}
            if body.get("prompt_logprobs") is not None:
                choice["prompt_logprobs"] = self._prompt_logprobs(self._models[name], prompt, body["prompt_logprobs"])
            return JSONResponse({"model": name, "choices": [choice]})

        return app

    async def _events(self, name: str, chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
        ended = False
        try:
            async for choice in chunks:
                yield f"data: {json.dumps({'model': name, 'choices': [choice]})}\n\n"
                await asyncio.sleep(self.delay)
            yield "data: [DONE]\n\n"
            ended = True
        finally:
            self.cancelled += not ended

    async def _chunks(self, name: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """A choice of each token. As in vLLM, the token that ended the answer is among the ids."""
        self._at_adapters += name != self.name
        try:
            async for choice in self._steps(self._models[name], name, body):
                yield choice
        finally:
            self._at_adapters -= name != self.name

    def _computing(self, model: Any, name: str) -> Any:
        """With what a step computes: on a CPU the last adapter gets into the base model's rows of a mixed batch."""
        if self.on_cpu and name == self.name and self._at_adapters:
            return list(self._models.values())[-1]
        return model

    async def _steps(self, model: Any, name: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        ids, top = list(body["prompt"]), max(1, body.get("logprobs") or 0)
        random = torch.Generator().manual_seed(body.get("seed") or 0)
        for produced in range(1, body["max_tokens"] + 1):
            logits = self._logits(self._computing(model, name), ids)[-1]
            logprobs = logits.log_softmax(-1)
            if body["temperature"] == 0:
                token = int(logits.argmax())
            else:
                token = int(torch.multinomial((logits / body["temperature"]).softmax(-1), 1, generator=random))
            ids.append(token)
            likeliest = logprobs.topk(top)
            reason = "length" if produced == body["max_tokens"] else None
            if token in (body.get("stop_token_ids") or []):
                reason = "stop"
            yield {
                "index": 0,
                "text": "",
                "token_ids": [token] if body.get("return_token_ids") else None,
                "logprobs": {
                    "token_logprobs": [float(logprobs[token])],
                    "top_logprobs": [
                        {f"token_id:{int(one)}": float(logprob) for logprob, one in zip(*likeliest, strict=True)}
                    ],
                },
                "finish_reason": reason,
            }
            if reason:
                return

    def _prompt_logprobs(self, model: Any, prompt: list[int], top: int) -> list[dict[str, Any] | None]:
        """As in vLLM: of the token that is there, and of so many of the likeliest."""
        logprobs = self._logits(model, prompt).log_softmax(-1)
        listed = [[token, *logprobs[at].topk(top).indices.tolist()] for at, token in enumerate(prompt[1:])]
        steps = [{str(one): {"logprob": float(logprobs[at, one])} for one in ids} for at, ids in enumerate(listed)]
        return [None, *steps]

    def _logits(self, model: Any, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
        return logits


def _error(status: int, message: str, kind: str, param: str | None = None) -> JSONResponse:
    error = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": error}, status_code=status)
