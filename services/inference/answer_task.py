"""`AnswerTask`: one answer to give; `End`: how it ended."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from fleet_kit.auth import Caller
from lora_core.sampling import Request, SamplingParams
from services.inference.chosen import Chosen
from services.inference.engine_thread import FinishReason
from services.inference.recording.exchange import Exchange
from services.inference.siblings import Siblings


@dataclass(frozen=True, slots=True)
class AnswerTask:
    """One answer to give."""

    generation_id: str
    chosen: Chosen
    prompt_ids: list[int]
    sampling: SamplingParams
    caller: Caller
    stop: tuple[str, ...] = ()
    """Texts before the first of which it ends."""
    workflow: str = ""
    wait_credit: float = 0.0
    """Seconds by which it counts as having waited longer for its adapter than it has."""
    held: AsyncExitStack | None = None
    """The lease of its adapters, which it takes over; None where it has to ask for them."""
    siblings: Siblings | None = None
    """The answers that it starts together with, of which it is number `choice`."""
    choice: int = 0
    first: bool = True
    """Not one of the further answers to the same request, from which nothing is learnt of what comes next."""
    comparison_id: str = ""
    """Of the answers that are given side by side; empty for a single one."""
    created: float = field(default_factory=time.monotonic)
    """When its prompt was read, on the monotonic clock."""
    exchange: Exchange | None = None
    """What would be recorded beside the answer; None where it is not to be recorded, also where policies permit it."""

    @property
    def request(self) -> Request:
        """The request to the back end."""
        return self.sampling.request(self.prompt_ids, self.chosen.of_engine, self.scope)

    @property
    def is_shadow(self) -> bool:
        """Whether it is shown to nobody."""
        return self.chosen.part is not None and self.chosen.part.shadow

    @property
    def scope(self) -> str:
        """Within which beginnings of prompts are shared: the domains of what answers, for the base model the caller."""
        domains = sorted({one.domain for one in self.chosen.adapters})
        return f"domains {' '.join(domains)}" if domains else f"caller {self.caller.subject}"


@dataclass(frozen=True, slots=True)
class End:
    """The answer's end."""

    reason: FinishReason
    completion_tokens: int
