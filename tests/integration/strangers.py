"""A caller of another domain tries every route that takes an id: what it may not see must read like what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

LETTERS = {"letter_id": "tried in tests/integration/kit/test_own_dead_letters.py"}
"""A parameter of every service with a database."""


@dataclass
class Stranger:
    """LimitedCaller for somebody else's things and for things that nobody has, and compares the answers."""

    client: httpx.AsyncClient
    attempts: int = 0
    distinguished: list[str] = field(default_factory=list)

    async def compare(
        self, method: str, path: str, foreign: str, absent: str, *, status: int = 404, **fields: Any
    ) -> None:
        """One route, with `ID` in path, params and body standing for the id; both answers must be this one."""
        answers = []
        for named in (foreign, absent):
            request = json.loads(json.dumps(fields).replace("ID", named))
            answer = await self.client.request(method, path.replace("ID", named), **request)
            answers.append((answer.status_code, answer.text.replace(named, "ID")))
        self.attempts += 1
        if answers[0] != answers[1] or answers[0][0] != status:
            self.distinguished.append(f"{method} {path} {fields}: {answers[0]} but {answers[1]}")

    async def refused(self, method: str, path: str, status: int = 403, **fields: Any) -> None:
        """What is done in a domain that the request names itself and its caller does not reach."""
        answer = await self.client.request(method, path, **fields)
        self.attempts += 1
        if answer.status_code != status:
            self.distinguished.append(f"{method} {path} {fields}: {answer.status_code} {answer.text[:200]}")

    async def sees_nothing_of(self, word: str, *paths: str) -> None:
        """Lists leave it out."""
        for path in paths:
            answer = await self.client.get(path)
            self.attempts += 1
            if answer.status_code != 200 or word in answer.text:
                self.distinguished.append(f"GET {path}: {answer.status_code} {answer.text[:300]}")

    async def walk(self, foreign: Mapping[str, str], others: Mapping[str, str], **fields: Any) -> None:
        """Every operation of the service's OpenAPI document whose path has one of these parameters.

        `foreign`: parameter → id of somebody else's thing. `others`: values of the remaining parameters; a path with
        a parameter that neither names is a fault, so that no new route is forgotten.
        """
        for method, path in await self._with_parameters():
            names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            if not (wanted := [name for name in names if name in foreign]):
                assert all(name in others for name in names), f"{method} {path} is not tried"
                continue
            [name] = wanted
            url = path.replace(f"{{{name}}}", "ID")
            for other in names:
                url = url.replace(f"{{{other}}}", others.get(other, ""))
            absent = ("0" if foreign[name][0] != "0" else "1") + foreign[name][1:]
            body = {} if method == "GET" else {"json": {}}
            await self.compare(method, url, foreign[name], absent, **body, **fields)

    async def _with_parameters(self) -> Iterable[tuple[str, str]]:
        document = (await self.client.get("/openapi.json")).json()
        return (
            (method.upper(), path) for path, methods in document["paths"].items() for method in methods if "{" in path
        )

    def report(self, service: str) -> None:
        """Print the count; raises AssertionError with everything that could be told apart."""
        print(f"\n{service}: {self.attempts} attempts across domains, {len(self.distinguished)} told apart")
        assert not self.distinguished, "\n".join(self.distinguished)
