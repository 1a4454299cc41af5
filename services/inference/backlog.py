"""How far a queue is that is worked off in order, so that an answer can wait for what it has put there."""

import asyncio
from collections import deque
from collections.abc import Sequence

from prometheus_client import Counter

FEW = 64
"""With more before it nothing waits: an answer must not be held up by what was left over from an outage."""

UNPUBLISHED = Counter(
    "lorafleet_inference_answers_ended_unpublished_total",
    "Responses that ended before their events were on the bus: it was unavailable, slow or far behind",
)


class Backlog:
    """Counts what is put into the queue and what has left it, and wakes who waits for that."""

    def __init__(self) -> None:
        self._put = 0
        self._gone = 0
        self._stuck = False
        self._waiting: deque[tuple[int, asyncio.Future[bool]]] = deque()

    def put(self) -> None:
        """One more."""
        self._put += 1

    def left(self) -> None:
        """The oldest is done."""
        self._stuck = False
        self.dropped()

    def dropped(self) -> None:
        """The oldest is given up."""
        self._gone += 1
        while self._waiting and self._waiting[0][0] <= self._gone:
            _wake(self._waiting.popleft()[1], done=True)

    def stuck(self) -> None:
        """The oldest cannot leave for now: nobody waits until one has left again."""
        self._stuck = True
        while self._waiting:
            _wake(self._waiting.popleft()[1], done=False)

    async def passed(self) -> bool:
        """Wait until all that is in the queue now has left it; False at once where that would take long."""
        ahead = self._put - self._gone
        if not ahead:
            return True
        if self._stuck or ahead > FEW:
            return False
        waits: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._put, waits))
        return await waits


def _wake(waits: "asyncio.Future[bool]", *, done: bool) -> None:
    if not waits.done():
        waits.set_result(done)


class Publications:
    """What the answers so far have published and recorded."""

    def __init__(self, backlogs: Sequence[Backlog], seconds: float) -> None:
        self._backlogs = backlogs
        self._seconds = seconds

    async def settled(self) -> None:
        """Wait until all of it is on the bus, for `seconds` at most; what is not is counted, and published later."""
        try:
            async with asyncio.timeout(self._seconds):
                complete = all([await one.passed() for one in self._backlogs])
        except TimeoutError:
            complete = False
        if not complete:
            UNPUBLISHED.inc()


NOTHING_PUBLISHED = Publications((), 0.0)
