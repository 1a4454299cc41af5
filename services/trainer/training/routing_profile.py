"""The routing profile of a training's prompts."""

from collections.abc import Iterable
from pathlib import Path

from lora_core.embedding import SentenceEmbedder, embedding_identity
from lora_core.routing_profile import RoutingProfile, prompts_to_embed
from services.trainer.training.protocol import Profiled

MOST_PROMPTS = 20_000
"""Of more, an even share: minutes of embedding that move no centroid."""
MOST_CHARACTERS = 2_000
"""From the end of a prompt, where its question mostly stands; more than embedding models read."""


def make_profile(prompts: Iterable[str], embedding_model: Path, work: Path) -> Profiled | None:
    """Embeds the prompts and writes their profile into `work`; None where no prompt has a text."""
    chosen = prompts_to_embed([prompt[-MOST_CHARACTERS:] for prompt in prompts], MOST_PROMPTS)
    if not chosen:
        return None
    file = work / "routing.safetensors"
    RoutingProfile.of(SentenceEmbedder(embedding_model).embed(chosen)).save(file)
    return Profiled(file=file, embedded_by=embedding_identity(embedding_model), prompts=len(chosen))
