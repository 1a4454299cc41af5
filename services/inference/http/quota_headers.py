"""What an answer's headers tell of its caller's quotas, as OpenAI's do: x-ratelimit-limit, -remaining and -reset."""

from dataclasses import dataclass
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.inference.quotas import Ledger

NAMES: Final = tuple(
    f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
_STATE: Final = "quota"


@dataclass(slots=True)
class Account:
    """Who is charged for a request; the domain once it is known who answers."""

    ledger: Ledger
    caller: str
    domain: str = ""


class QuotaHeaders:
    """ASGI middleware. An answer is charged when it ends, so a stream, whose headers come first, counts as begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def told(message: Message) -> None:
            account = state.get(_STATE)
            if account is not None and message["type"] == "http.response.start" and message["status"] == 200:
                headers = MutableHeaders(scope=message)
                streamed = headers.get("content-type", "").startswith("text/event-stream")
                for name, value in account.ledger.headers(account.caller, account.domain, int(streamed)).items():
                    headers.setdefault(name, value)  # a forwarded answer has those of the replica that charged it
            await send(message)

        await self._app(scope, receive, told)
