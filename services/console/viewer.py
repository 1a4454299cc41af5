"""Who looks: their rights, and calls to the services with their own token. The console has no rights of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from fleet_kit.auth import CALLER, Caller, Verifier
from fleet_kit.errors import Problem
from fleet_kit.http_limits import body_rule
from lorafleet.clients import Call, carry_out, stream
from lorafleet.errors import FleetError, ServiceError, Unreachable
from services.console.parts import ConsoleService, ThisService
from services.console.session import form_token, form_token_is_good

__all__ = ["FORM", "Submitted", "ThisViewer", "Viewer", "problem_of"]

Answer = TypeVar("Answer")
FORM = body_rule(64 * 1024, "application/x-www-form-urlencoded")
"""`openapi_extra` of what takes a form."""


@dataclass(frozen=True)
class Viewer:
    """A person with their token."""

    caller: Caller
    token: str
    service: ConsoleService
    verifier: Verifier

    async def call(self, call: Call[Answer]) -> Answer:
        """Carry out a call with this person's rights. Raises `Problem` with what the service answers."""
        try:
            base = self.service.settings.service_url(call.service)
            return await carry_out(self.service.http, base, self.token, call)
        except FleetError as error:
            raise problem_of(error) from error

    async def maybe(self, call: Call[Answer] | None) -> Answer | None:
        """The same; None for no call, and where there is nothing of that name."""
        if call is None:
            return None
        try:
            return await self.call(call)
        except Problem as problem:
            if problem.status != 404:
                raise
            return None

    async def if_available(self, call: Call[Answer]) -> Answer | None:
        """The same; None while the service is unavailable, for a part of a page that makes sense without it."""
        try:
            return await self.call(call)
        except Problem as problem:
            if problem.status != 503:
                raise
            return None

    async def stream(self, call: Call[Answer]) -> AsyncIterator[dict[str, object]]:
        """Carry out a call whose reply is server-sent events; yields each event's JSON."""
        base = self.service.settings.service_url(call.service)
        async for event in stream(self.service.http, base, self.token, call):
            yield event

    async def verified(self) -> None:
        """Raise a 401 `Problem` once the token has ended or was revoked: a stream may outlive it."""
        await self.verifier.verify(self.token)

    def can(self, scope: str) -> bool:
        """Whether the token carries this scope, for some domain: the services decide for which."""
        return scope in self.caller.scopes

    @property
    def form_token(self) -> str:
        """What this person's forms carry."""
        return form_token(self.token)


def problem_of(error: FleetError) -> Problem:
    """An error of a service as the console answers it."""
    if isinstance(error, Unreachable):
        return Problem(503, "Unavailable", str(error), retry_after=2)
    if isinstance(error, ServiceError):
        return Problem(error.status, "Refused by a service", str(error), field=error.field or None)
    return Problem(502, "Unexpected answer", str(error))


async def viewer(request: Request, service: ThisService) -> Viewer:
    """The person of a request that came through the front, which has verified the token."""
    _, _, token = request.headers["authorization"].partition(" ")
    return Viewer(request.scope[CALLER], token.strip(), service, request.app.state.verifier)


ThisViewer = Annotated[Viewer, Depends(viewer)]


async def submitted(request: Request, viewer: ThisViewer) -> Mapping[str, str]:
    """A form's fields; raises a 403 `Problem` for one that no page of this session made."""
    form = await request.form()
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    sent = fields.pop("form_token", "") or request.headers.get("x-form-token", "")
    if not form_token_is_good(sent, viewer.token):
        detail = "this form is not from a page of your present session; go back, reload the page and send it again"
        raise Problem(403, "Form refused", detail, field="form_token")
    return fields


Submitted = Annotated[Mapping[str, str], Depends(submitted)]
