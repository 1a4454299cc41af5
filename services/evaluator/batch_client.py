"""The evaluator's side of /v1/files and /v1/batches: answers that a server computes aside, behind its users' requests.

Source: the API reference of OpenAI's Batch API. A batch is found again by its `metadata`: nothing of it is stored
here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from services.evaluator.domain import EvaluationFailure
from services.evaluator.openai_client import Answer, Chat, Unready, chat_body, refusal_of

MARK = "lorafleet_evaluation"
"""Member of `metadata` with the evaluation's id."""
ENDPOINT = "/v1/chat/completions"
KEPT_SECONDS = 2 * 86400
"""Of files that a crash leaves behind: longer than a batch's window."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled", "cancelling"})
"""States in which no further answer is to be waited for."""
M = TypeVar("M", bound=BaseModel)


class NoBatches(Exception):
    """The server computes none, or takes no more; the message has the reason."""


class Counts(BaseModel):
    completed: int = 0
    failed: int = 0


class Batch(BaseModel):
    """The parts of a batch that are read here. Times are Unix seconds."""

    id: str
    status: str
    created_at: int
    input_file_id: str
    in_progress_at: int | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    metadata: dict[str, str] | None = None
    request_counts: Counts | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def computed(self) -> int:
        """Lines with an answer or a refusal."""
        return self.request_counts.completed + self.request_counts.failed if self.request_counts else 0


class _Page(BaseModel):
    data: list[Batch]
    has_more: bool = False


class _File(BaseModel):
    id: str


class _Response(BaseModel):
    status_code: int
    body: dict[str, object]


class _Line(BaseModel):
    custom_id: str
    response: _Response | None = None


class BatchClient:
    """Calls one server. Transport faults pass through as httpx errors; Unready and EvaluationFailure as for answers."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, timeout: float, headers: Mapping[str, str]) -> None:
        self._http = http
        self._headers = dict(headers)
        self._url = base_url.rstrip("/")
        self._timeout = timeout

    async def find(self, mark: str, since: datetime) -> Batch | None:
        """The batch with this mark, of those made since then. Raises NoBatches where the server has none at all."""
        after = ""
        while True:
            path = f"/v1/batches?limit=100{f'&after={after}' if after else ''}"
            page = await self._json("GET", path, _Page)
            for one in page.data:
                if (one.metadata or {}).get(MARK) == mark:
                    return one
            # A minute more, for clocks that differ.
            if not page.has_more or not page.data or page.data[-1].created_at < since.timestamp() - 60:
                return None
            after = page.data[-1].id

    async def check_model(self, model: str) -> None:
        """Raises Unready unless the server knows the model by now: a line would be refused for good."""
        response = await self._send("GET", f"/v1/models/{model}")
        if response.status_code == 404:
            raise Unready(f"{model}: {refusal_of(response)[0]}")
        _checked(response, "/v1/models")

    async def create(
        self, mark: str, model: str, prompts: Mapping[str, Sequence[Mapping[str, str]]], max_tokens: int
    ) -> Batch:
        """Have these conversations answered, by their ids."""
        lines = "".join(
            json.dumps(
                {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": chat_body(model, one, max_tokens)}
            )
            + "\n"
            for name, one in prompts.items()
        )
        fields = {
            "purpose": "batch",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": str(KEPT_SECONDS),
        }
        named = {"file": ("evaluation.jsonl", lines.encode(), "application/jsonl")}
        file = await self._json("POST", "/v1/files", _File, data=fields, files=named)
        body = {
            "input_file_id": file.id,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {MARK: mark},
            "output_expires_after": {"anchor": "created_at", "seconds": KEPT_SECONDS},
        }
        return await self._json("POST", "/v1/batches", Batch, json=body)

    async def get(self, batch_id: str) -> Batch:
        return await self._json("GET", f"/v1/batches/{batch_id}", Batch)

    async def cancel(self, batch_id: str) -> None:
        """Whatever it is at by now."""
        await self._send("POST", f"/v1/batches/{batch_id}/cancel")

    async def answers(self, batch: Batch) -> dict[str, Answer]:
        """What was answered, by id; lines that were refused or not computed have none."""
        if batch.output_file_id is None:
            return {}
        response = await self._send("GET", f"/v1/files/{batch.output_file_id}/content")
        if response.status_code == 404:
            return {}
        _checked(response, "/v1/files")
        try:
            lines = [_Line.model_validate_json(line) for line in response.content.splitlines() if line]
            return {
                line.custom_id: Chat.model_validate(line.response.body).answer
                for line in lines
                if line.response is not None and line.response.status_code == 200
            }
        except ValidationError as error:
            raise EvaluationFailure(
                f"the output of batch {batch.id} is out of protocol: {error.errors()[0]}"
            ) from error

    async def delete_files(self, batch: Batch) -> None:
        """Those of a batch that is not needed any more; one that is gone already is no fault."""
        for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                await self._send("DELETE", f"/v1/files/{file_id}")

    async def _json(self, method: Literal["GET", "POST"], path: str, shape: type[M], **sent: object) -> M:
        response = _checked(await self._send(method, path, **sent), path.partition("?")[0])
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise NoBatches(f"{path} answered out of protocol: {error.errors()[0]['msg']}") from error

    async def _send(self, method: str, path: str, **sent: object) -> httpx.Response:
        return await self._http.request(
            method,
            self._url + path,
            headers=self._headers,
            timeout=self._timeout,
            **sent,  # type: ignore[arg-type]
        )


def _checked(response: httpx.Response, path: str) -> httpx.Response:
    """Raises Unready for a server that is busy or unavailable, NoBatches for any other refusal."""
    if not response.is_error:
        return response
    reason = f"{path}: {response.status_code} {refusal_of(response)[0]}"
    if response.status_code == 429 or (response.status_code >= 500 and response.status_code != 501):
        raise Unready(reason)
    raise NoBatches(reason)
