"""`BatchRunner`: takes batches that no replica runs, and has their lines answered as online requests are."""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import structlog
from fastapi import Request, Response
from prometheus_client import Gauge
from starlette.types import Message

from fleet_kit import tasks
from fleet_kit.access_list import AccessList
from fleet_kit.errors import Problem
from fleet_kit.faults import describe
from fleet_kit.key_value import WrittenMeanwhile
from services.inference.batches import lifecycle
from services.inference.batches.execution import LINES, Execution
from services.inference.batches.held import HeldBatch, LeaseLost
from services.inference.batches.lines import LineAt, body_of
from services.inference.batches.records import BatchRecord
from services.inference.batches.results import answered
from services.inference.batches.store import Kept
from services.inference.errors import ApiError, Busy, NotFound, RateLimited
from services.inference.http import api
from services.inference.http.error_responses import as_openai
from services.inference.http.responses import routes as responses
from services.inference.parts import InferenceParts
from services.inference.precedence import Aside
from services.inference.quotas.ledger import OF_MINUTE
from services.inference.recording.recorder import AWAY
from services.inference.replicas.forwarding import HOP
from services.inference.settings import InferenceSettings

log = structlog.get_logger()

RUNNING = Gauge("lorafleet_inference_batches_running", "Batches that this process runs")
LOOK_EVERY = 2.0
"""Seconds between two looks at which batches no replica runs."""
AT_ONCE = 4
"""Batches that one process runs side by side."""
FIRST_WAIT = 0.5
TRIES = 20
"""Of a line for which the server is busy; the last one's error is its answer then."""
LONGEST_WAIT = 30.0

_ENDPOINTS: Mapping[str, Callable[..., Awaitable[Response]]] = {
    "/v1/chat/completions": api.chat,
    "/v1/completions": api.completions,
    "/v1/responses": responses.respond,
}


class BatchRunner:
    """Runs batches of all callers, each with its own caller's rights."""

    def __init__(self, parts: InferenceParts, settings: InferenceSettings, access: AccessList) -> None:
        self._parts = parts
        self._access = access
        self._store = parts.batches
        self._settings = settings
        self._holder = f"{settings.replica}.{secrets.token_hex(6)}"
        self._running: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        """Batch → its revision, and since when (monotonic s) it has that: its holder is dead if for a lease's time."""
        self._slots = asyncio.Semaphore(settings.batch_concurrency)

    async def run(self) -> None:
        """Look for batches until cancelled; those that it runs are released then."""
        if not self._settings.batch_concurrency:
            await asyncio.Event().wait()
        await self._parts.projection.caught_up.wait()
        await self._access.caught_up.wait()
        try:
            while True:
                try:
                    await self._look()
                except AWAY as error:
                    log.warning("batches_not_read", reason=describe(error))
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_EVERY, self._settings.batch_lease_seconds / 2)):
                        await self._store.added.wait()
                self._store.added.clear()
        finally:
            await tasks.end(*self._running.values())

    async def _look(self) -> None:
        if self._parts.gate.draining:
            await tasks.end(*self._running.values())
            return
        found, now = await self._store.open(), time.monotonic()
        seen, self._seen = self._seen, {}
        for one in found:
            kept = await self._revoked(one) if self._is_revoked(one.batch) else one
            revision, since = seen.get(kept.batch.id, (0, now))
            self._seen[kept.batch.id] = (kept.revision, since if revision == kept.revision else now)
            free = not kept.batch.holder or now - self._seen[kept.batch.id][1] >= self._settings.batch_lease_seconds
            if free and kept.batch.id not in self._running and len(self._running) < AT_ONCE:
                self._running[kept.batch.id] = task = asyncio.create_task(self._take(kept))
                task.add_done_callback(partial(self._forget, kept.batch.id))

    def _is_revoked(self, batch: BatchRecord) -> bool:
        owner = batch.owner
        return self._access.is_revoked(owner.subject, owner.token_id, batch.created_at)

    async def _revoked(self, kept: Kept) -> Kept:
        """Cancel a batch of a revoked key or token: the process that runs it learns of that as of any cancellation."""
        now = int(time.time())
        if lifecycle.revoked(kept.batch, now) is kept.batch:
            return kept
        log.warning("batch_of_revoked_credential", batch_id=kept.batch.id, subject=kept.batch.owner.subject)
        with suppress(NotFound):  # its record has expired or was erased meanwhile
            return await self._store.change(kept, lambda batch: lifecycle.revoked(batch, now))
        return kept

    def _forget(self, batch_id: str, _: asyncio.Task[None]) -> None:
        self._running.pop(batch_id, None)

    async def _take(self, kept: Kept) -> None:
        batch_id = kept.batch.id
        try:
            taken = await self._store.write(lifecycle.taken(kept.batch, self._holder), kept.revision)
            log.info("batch_taken", batch_id=batch_id, status=kept.batch.status, before=kept.batch.holder)
            with RUNNING.track_inprogress():
                await self._hold(HeldBatch(self._store, taken, self._holder, self._settings.batch_lease_seconds))
        except WrittenMeanwhile:
            log.info("batch_taken_by_another", batch_id=batch_id)
        except (LeaseLost, *AWAY) as error:
            log.warning("batch_left", batch_id=batch_id, reason=describe(error))
        except Exception:
            log.exception("batch_broke", batch_id=batch_id)

    async def _hold(self, held: HeldBatch) -> None:
        at_once = self._settings.batch_concurrency
        execution = Execution(held, self._store, self._settings, self._answer, at_once, is_revoked=self._is_revoked)
        work, beats = asyncio.create_task(execution.run()), asyncio.create_task(held.keep())
        try:
            try:
                await asyncio.wait({work, beats}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    beats.result()
                # The beats of a batch stop at its end; the parts are deleted after that.
                await work
            finally:
                await tasks.end(work, beats)
        except (asyncio.CancelledError, LeaseLost, *AWAY):
            # After a defect it is not released: its holder counts as dead then, and after some it is given up.
            if not held.batch.ended:
                with suppress(LeaseLost, *AWAY):
                    await held.release()
            raise

    async def _answer(self, held: HeldBatch, path: Path, line: LineAt) -> Mapping[str, object]:
        """The line of the output; begun again while the server is busy, or where online requests interrupt it."""
        tries, since, precedence = 0, time.monotonic(), self._parts.generator.precedence
        while True:
            async with self._slots:
                aside = Aside(since)
                await precedence.quiet(aside)
                attempt = asyncio.create_task(self._attempt(held, path, line, aside))
                aside.task = attempt
                try:
                    status, body, error = await asyncio.shield(attempt)
                except asyncio.CancelledError:
                    if not aside.interrupted or cast("asyncio.Task[object]", asyncio.current_task()).cancelling():
                        raise
                    LINES.labels("interrupted").inc()
                    continue
                finally:
                    await tasks.end(attempt)
                    precedence.leave(aside)
            tries += not isinstance(error, RateLimited)
            pause = pause_after(error, tries)
            if pause is None:
                return answered(line.custom_id, status, body)
            await asyncio.sleep(pause)

    async def _attempt(
        self, held: HeldBatch, path: Path, line: LineAt, aside: Aside
    ) -> tuple[int, dict[str, object], Exception | None]:
        """Status and body as the endpoint answers an online request."""
        endpoint, caller = held.batch.endpoint, held.batch.owner.caller
        body = await asyncio.to_thread(body_of, path, line, endpoint)
        with self._parts.generator.precedence.aside(aside):
            try:
                response = await _ENDPOINTS[endpoint](body, _request(endpoint), caller, self._parts)
                error: Exception | None = None
            except (ApiError, Problem) as refusal:
                response, error = as_openai(refusal), refusal
            except Exception as fault:
                log.exception("batch_line_failed", batch_id=held.batch.id, custom_id=line.custom_id)
                problem = Problem(500, "Internal error", "this service has a defect; its log has the details")
                response, error = as_openai(problem), fault
        return response.status_code, json.loads(bytes(response.body)), error


def pause_after(error: Exception | None, tries: int) -> float | None:
    """Seconds until a line is begun again; None where what came of it stands. `tries`: how often it was begun.

    A minute's quota is waited for however often; a month's ends the line.
    """
    if isinstance(error, RateLimited) and error.code == OF_MINUTE:
        return error.retry_after
    if isinstance(error, Busy) and tries < TRIES:
        return min(FIRST_WAIT * float(2 ** (tries - 1)), LONGEST_WAIT)
    return None


def _request(path: str) -> Request:
    """A request that is answered here, of a client that stays."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    headers = [(HOP.lower().encode(), b"batch")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    return Request(scope, receive)
