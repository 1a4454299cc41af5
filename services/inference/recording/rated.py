"""Answers that are recorded only if they get feedback: held in memory, for a time and up to a size."""

import time
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import Counter

from services.inference.recording.exchange import PendingAnswer

EXPIRED = Counter(
    "lorafleet_inference_unrated_answers_total",
    "Answers that were held for feedback and left without any, by why (age, room, policy)",
    ["reason"],
)


class HeldForFeedback:
    """At most `characters` of them, each for at most `seconds`; the oldest leave first."""

    def __init__(self, characters: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._room = characters
        self._seconds = seconds
        self._now = now
        self._held: OrderedDict[str, tuple[float, PendingAnswer]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, answer: PendingAnswer) -> None:
        """Keep it for feedback."""
        if answer.size > self._room:
            EXPIRED.labels("room").inc()
            return
        self._held[answer.event.generation_id] = self._now(), answer
        self._size += answer.size
        self._expire()

    def find(self, generation_id: str) -> PendingAnswer | None:
        """The answer of that id, which stays until it is `taken`."""
        self._expire()
        held = self._held.get(generation_id)
        return held[1] if held else None

    def taken(self, generation_id: str) -> None:
        """It is published: the first feedback on it was enough."""
        if held := self._held.pop(generation_id, None):
            self._size -= held[1].size

    def withdraw(self, permitted: Callable[[PendingAnswer], bool]) -> None:
        """Forget every answer that is no longer permitted."""
        for generation_id in [one for one, (_, answer) in self._held.items() if not permitted(answer)]:
            self.taken(generation_id)
            EXPIRED.labels("policy").inc()

    def _expire(self) -> None:
        oldest_kept = self._now() - self._seconds
        while self._held:
            generation_id, (since, _) = next(iter(self._held.items()))
            if since >= oldest_kept and self._size <= self._room:
                return
            EXPIRED.labels("age" if since < oldest_kept else "room").inc()
            self.taken(generation_id)
