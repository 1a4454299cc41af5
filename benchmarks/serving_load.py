"""Load on an OpenAI-compatible server, from a process of its own: `python -m benchmarks.serving_load < plan.json`.

The plan: {"url", "token", "max_tokens", "requests": [{"at": seconds, "model", "prompt", "max_tokens"}]}. Requests are
sent at their times whether or not earlier ones are answered, and streamed. Prints one object for each, in the plan's
order.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

TIMEOUT = 600.0


@dataclass(frozen=True)
class LoadRequest:
    """One request: the prompt, the model, how many seconds after the start, and its tokens if not the load's."""

    model: str
    prompt: str
    at: float = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True)
class Answer:
    """What became of it. Times are seconds after the start; `ends` are those of the pieces that came."""

    status: int
    sent: float
    ends: list[float] = field(default_factory=list)
    tokens: int = 0
    text: str = ""
    adapter_id: str | None = None
    error: str = ""

    @property
    def first(self) -> float:
        """Seconds from sending to the first piece."""
        return self.ends[0] - self.sent


@dataclass(frozen=True)
class Outcome:
    """All answers to a load."""

    answers: list[Answer]

    @property
    def failed(self) -> list[Answer]:
        return [one for one in self.answers if one.status != 200 or one.error]

    @property
    def tokens_per_second(self) -> float:
        """All tokens, from the first request to the last piece."""
        whole = max(one.ends[-1] for one in self.answers if one.ends) - min(one.sent for one in self.answers)
        return sum(one.tokens for one in self.answers) / whole

    @property
    def firsts(self) -> list[float]:
        """Time to first token of each, seconds."""
        return [one.first for one in self.answers if one.ends]

    @property
    def gaps(self) -> list[float]:
        """Time between tokens, seconds, of all answers together."""
        return [b - a for one in self.answers for a, b in zip(one.ends, one.ends[1:], strict=False)]


def load(url: str, token: str, requests: Sequence[LoadRequest], max_tokens: int) -> Outcome:
    """Puts the load on a server, from another process, and waits for its end."""
    plan = {"url": url, "token": token, "max_tokens": max_tokens, "requests": [asdict(request) for request in requests]}
    command = [sys.executable, "-m", "benchmarks.serving_load"]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    return Outcome([Answer(**one) for one in json.loads(done.stdout)])


async def _send(client: httpx.AsyncClient, request: LoadRequest, max_tokens: int, begun: float) -> Answer:
    await asyncio.sleep(max(0.0, begun + request.at - time.perf_counter()))
    body: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens or max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent = time.perf_counter() - begun
    ends: list[float] = []
    tokens, text, adapter_id = 0, "", None
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                return Answer(response.status_code, sent, error=(await response.aread()).decode()[:500])
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    return Answer(200, sent, ends, tokens, text, adapter_id, error=str(chunk["error"])[:500])
                adapter_id = (chunk.get("lorafleet") or {}).get("adapter_id") or adapter_id
                if usage := chunk.get("usage"):
                    tokens = usage["completion_tokens"]
                if chunk.get("choices"):
                    ends.append(time.perf_counter() - begun)
                    text += chunk["choices"][0].get("text") or ""
    except httpx.HTTPError as error:
        return Answer(0, sent, ends, tokens, text, adapter_id, error=repr(error))
    return Answer(200, sent, ends, tokens, text, adapter_id)


async def _run(plan: dict[str, Any]) -> list[Answer]:
    requests = [LoadRequest(**one) for one in plan["requests"]]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    headers = {"Authorization": f"Bearer {plan['token']}"} if plan["token"] else {}
    async with httpx.AsyncClient(
        base_url=plan["url"], headers=headers, timeout=TIMEOUT, limits=limits, trust_env=False
    ) as client:
        begun = time.perf_counter() + 0.1
        return await asyncio.gather(*(_send(client, request, plan["max_tokens"], begun) for request in requests))


if __name__ == "__main__":
    json.dump([asdict(one) for one in asyncio.run(_run(json.load(sys.stdin)))], sys.stdout)
