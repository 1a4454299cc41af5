"""A registry made of the kit whose handler ends its own process on one event. Run as a program, with a service's
environment; prints the generation id of each event that it has begun with. DIES_BEFORE_ACKNOWLEDGING names an event of
which the effect is committed before the process ends."""

import asyncio
import os
import signal
from typing import Any

from fastapi import APIRouter
from nats.aio.msg import Msg

from fleet_events import v1
from fleet_kit import intake
from fleet_kit.handlers import Handlers
from fleet_kit.service import create_app
from fleet_kit.settings import ServiceSettings
from fleet_kit.together import Together
from fleet_kit.transaction import Transaction

handlers: Handlers[Any] = Handlers("registry")


@handlers.on(v1.FeedbackRecorded)
async def handle(event: v1.FeedbackRecorded, tx: Transaction, service: object) -> None:
    print("began", event.generation_id, flush=True)
    if event.comment == "deadly":
        await asyncio.sleep(0.1)  # others are under way by now
        os.kill(os.getpid(), signal.SIGKILL)
    if event.comment == "slow":
        await asyncio.sleep(0.3)


class Deadly(Together):
    async def _acknowledge(self, message: Msg, outcome: str, seconds: float) -> None:
        if (message.headers or {}).get("ce-id") == os.environ.get("DIES_BEFORE_ACKNOWLEDGING"):
            os.kill(os.getpid(), signal.SIGKILL)
        await super()._acknowledge(message, outcome, seconds)


async def main() -> None:
    setattr(intake, "Together", Deadly)  # noqa: B010 - what it makes for each durable
    settings = ServiceSettings()  # type: ignore[call-arg] # from the environment
    app = create_app("registry", settings, handlers=handlers, api=APIRouter())
    async with app.router.lifespan_context(app):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
