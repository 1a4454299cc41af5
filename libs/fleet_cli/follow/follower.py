"""Follows one loop from its request to its end: requests the training, then follows the events and the evaluation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress

from nats.aio.client import Client

from fleet_cli.follow.job_progress import JobProgress
from fleet_cli.follow.job_stream import follow_job_async
from fleet_cli.follow.lifecycle import (
    DeadLettered,
    EvaluationProgress,
    Happened,
    Loop,
    Outcome,
    Step,
    StepState,
    TrainingProgress,
    advance,
    begin,
)
from fleet_events import v1
from fleet_events.topology import DEAD_STREAM
from fleet_kit.cloudevents import open_envelope
from fleet_kit.errors import Refused
from fleet_kit.tasks import end
from lorafleet import bus, calls
from lorafleet.clients import AsyncFleetClient
from lorafleet.errors import FleetError
from lorafleet.home import FleetHome

# An approved version is activated in the same transaction, where the policy activates on approval.
ACTIVATION_GRACE = 10.0
POLL_SECONDS = 2.0
Happenings = asyncio.Queue[Happened | Exception]
"""What the watchers observed, or the error that ended one of them."""


async def run_loop(
    home: FleetHome,
    request: v1.TrainingRequested,
    show: Callable[[Loop, Loop], None],
    warn: Callable[[str], None],
    *,
    until: Step = Step.APPROVE,
    wait_for_review: bool = False,
    timeout: float | None = None,
) -> Loop:
    """Request a training and follow it to the end of `until`.

    `show(before, after)` is called for each change, `warn` for each warning with which the request is accepted.

    Raises `FleetError` when the loop has not ended after `timeout` seconds; the loop itself continues.
    """
    async with bus.connect(home) as nats, AsyncFleetClient(home) as fleet:
        # Positions from before the request: nothing that follows from it can be missed.
        events_after, dead_after = await bus.position(nats), await bus.position(nats, [DEAD_STREAM])
        accepted = await fleet.call(calls.request_training(request))
        for warning in accepted.warnings:
            warn(warning)
        before = Loop(request.model_copy(update={"job_id": accepted.job_id}))
        loop = begin(before.request)
        show(before, loop)
        happenings: Happenings = asyncio.Queue()
        state = _Shared(loop)
        watchers = [
            asyncio.create_task(_guarded(work, happenings))
            for work in (
                _events(nats, events_after, happenings),
                _dead_letters(nats, dead_after, happenings),
                _training(fleet, state, happenings),
                _evaluation(fleet, state, happenings),
            )
        ]
        try:
            return await _until_the_end(
                state, happenings, show, until=until, wait_for_review=wait_for_review, timeout=timeout
            )
        finally:
            await end(*watchers)


class _Shared:
    """The current loop, shared with the watchers."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop


async def _until_the_end(
    state: _Shared,
    happenings: Happenings,
    show: Callable[[Loop, Loop], None],
    *,
    until: Step,
    wait_for_review: bool,
    timeout: float | None,
) -> Loop:
    give_up = time.monotonic() + timeout if timeout is not None else None
    approved_at: float | None = None
    while not _ended(state.loop, until, wait_for_review):
        now = time.monotonic()
        if state.loop.outcome is Outcome.APPROVED:
            approved_at = approved_at or now
            if now > approved_at + ACTIVATION_GRACE:
                break
        if give_up is not None and now > give_up:
            raise FleetError(f"job {state.loop.job_id} has not ended after {timeout:g} s (--timeout); it keeps running")
        try:
            async with asyncio.timeout(1.0):
                happened = await happenings.get()
        except TimeoutError:
            continue
        if isinstance(happened, Exception):
            raise happened
        after = advance(state.loop, happened)
        if after is not state.loop:
            show(state.loop, after)
            state.loop = after
    return state.loop


def _ended(loop: Loop, until: Step, wait_for_review: bool) -> bool:
    match loop.outcome:
        case Outcome.ACTIVE | Outcome.REJECTED | Outcome.FAILED:
            return True
        case Outcome.PENDING_REVIEW:
            return not wait_for_review
    return until is not Step.APPROVE and loop.steps[until].state is StepState.DONE


async def _guarded(work: Coroutine[None, None, None], happenings: Happenings) -> None:
    try:
        await work
    except Exception as error:
        # Raised where the queue is read: a watcher that ended silently would leave the loop waiting for ever.
        happenings.put_nowait(error)


async def _events(nats: Client, after: bus.Position, happenings: Happenings) -> None:
    async for received in bus.follow(nats, after=after):
        if received.event is not None:
            happenings.put_nowait(received.event)


async def _dead_letters(nats: Client, after: bus.Position, happenings: Happenings) -> None:
    async for letter in bus.follow(nats, after=after, streams=[DEAD_STREAM]):
        headers = {name.lower(): value for name, value in letter.headers.items()}
        # An unreadable body names no job: it cannot be ours, which was accepted.
        with suppress(Refused):
            event, _ = open_envelope(headers.get("lorafleet-subject", ""), letter.headers, letter.body, 0, letter.at)
            reason = headers.get("lorafleet-reason", "")
            happenings.put_nowait(DeadLettered(event, headers.get("lorafleet-consumer", "a service"), reason))


async def _training(fleet: AsyncFleetClient, state: _Shared, happenings: Happenings) -> None:
    """Every step of the training: events carry only a few per minute."""
    job_id, progress = state.loop.job_id, JobProgress()
    # Without the stream the events still end the step: only the bar stops.
    with suppress(FleetError):
        async for event in follow_job_async(fleet, job_id):
            progress = progress.after(event)
            if progress.total and state.loop.steps[Step.TRAIN].state is StepState.RUNNING:
                happenings.put_nowait(TrainingProgress(job_id, progress.done, progress.total, progress.numbers))


async def _evaluation(fleet: AsyncFleetClient, state: _Shared, happenings: Happenings) -> None:
    """The progress of the evaluation, polled: no event carries it."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        loop = state.loop
        if loop.steps[Step.EVALUATE].state is not StepState.RUNNING:
            continue
        # An evaluator that restarts resumes its work: only the bar stops.
        with suppress(FleetError):
            for one in await fleet.call(calls.evaluations(loop.adapter_id)):
                if one.total:
                    happenings.put_nowait(EvaluationProgress(loop.adapter_id, one.done, one.total))
                    break
