"""What counts as proof that a loaded adapter has its effect, and has the one that its trainer saw."""

from dataclasses import dataclass

from fleet_events.v1 import Adapter
from fleet_events.v1 import Probe as RecordedProbe
from services.inference.slots.states import LoadFailed
from services.inference.tokenizer import Vocabulary

PROBE_PROMPT = "What can you help me with?"
"""For adapters whose trainer recorded no probe."""

COMPARED_METHODS = frozenset({"lora", "dora"})
"""QLoRA trains on a quantised base model: its logits are not those that the full base model gives."""

RELATIVE_TOLERANCE = 0.02
"""How far logits may be from those that the trainer recorded, as a part of the recorded change."""

LEAST_PART = 0.05
"""Smallest change that counts as an effect, as a part of the constant tolerance."""


@dataclass(frozen=True, slots=True)
class Exactness:
    """How exactly a back end computes.

    tolerance: how far logits may be from those that the trainer recorded, beside `RELATIVE_TOLERANCE`. Float32 in
    another order of operations was seen to differ by less than 1e-3.
    """

    tolerance: float = 0.02

    @property
    def least_effect(self) -> float:
        """Smallest change of any logit that counts. Rounding alone changes float32 logits (tens) by 1e-5."""
        return LEAST_PART * self.tolerance

    def allowed(self, recorded: RecordedProbe) -> float:
        """How far each logit may be from the recorded one."""
        return self.tolerance + RELATIVE_TOLERANCE * abs(recorded.max_delta)

    def require_effect(self, delta: float) -> None:
        """Raises LoadFailed where the largest change of a logit is no effect. Written so that NaN fails as well."""
        if not delta >= self.least_effect:
            raise LoadFailed(
                "no_effect",
                f"it changes no logit of the probe prompt by {self.least_effect:g} or more (largest change {delta:g})",
            )


def recorded_probe(adapter: Adapter) -> RecordedProbe | None:
    """What its trainer recorded, if anything."""
    return adapter.probe if adapter.probe and adapter.probe.top_ids else None


def is_compared(adapter: Adapter) -> bool:
    """Whether the recorded probe is to be met."""
    return recorded_probe(adapter) is not None and adapter.method in COMPARED_METHODS


def probe_ids(adapter: Adapter, vocabulary: Vocabulary) -> list[int]:
    """The probe prompt's tokens, as the trainer encodes it: a user's turn where the model has a chat template."""
    recorded = recorded_probe(adapter)
    prompt = recorded.prompt if recorded else PROBE_PROMPT
    return vocabulary.of_chat([("user", prompt)]) if vocabulary.has_chat_template else vocabulary.of_text(prompt)[0]
