"""Whose turn it is: of the jobs that wait, the one of highest priority goes first, within one priority the oldest."""

import time

from fleet_kit.errors import NotYet
from services.trainer.jobs import store
from services.trainer.jobs.context import JobContext
from services.trainer.jobs.domain import JobState

PATIENCE = 60.0
"""Seconds of giving way after which a worker takes the job it has: the one that goes before it never came.

The bus keeps the events of all waiting jobs, so a worker without work meets the first of them within seconds. Only one
whose event was lost, for example to the dead letters, does not come; it must not hold up all others.
"""
_DELAY = 0.25
_LONGEST_DELAY = 10.0


class Turn:
    """Lets a worker's jobs give way to those before them. One a process, since a process trains one job at a time."""

    def __init__(self) -> None:
        self._since = 0.0
        self._last = float("-inf")

    async def wait(self, job_id: str, service: JobContext) -> None:
        """Return when the job is next; raises `NotYet` when another one is.

        The event comes again the later the more jobs go before its own: the bus would be busy with a long queue.
        """
        async with service.db.acquire(timeout=5) as connection:
            job = await store.find_job(connection, job_id)
            ahead = await store.count_ahead(connection, job) if job and job.state is JobState.QUEUED else 0
        if ahead and self.gives_way(time.monotonic()):
            raise NotYet(f"{ahead} jobs go before job {job_id}", after=min(_DELAY * (1 + ahead), _LONGEST_DELAY))

    def gives_way(self, now: float) -> bool:
        """Whether a job that others go before waits, at this time in seconds: not once patience has ended."""
        if now - self._last > 2 * _LONGEST_DELAY:
            self._since = now  # it had work or nothing to wait for meanwhile
        self._last = now
        if now - self._since <= PATIENCE:
            return True
        self._last = float("-inf")
        return False
