"""A recorded answer as it leaves the process: personal data masked, and its texts apart where they are large."""

import json

from fleet_events.v1 import Blob, GenerationRecorded, PersonalDataAction, Turn
from personal_data import masked


def without_personal_data(event: GenerationRecorded, action: PersonalDataAction) -> GenerationRecorded | None:
    """The answer with personal data masked; None where it has some and is to be dropped for it. Pure, and slow."""
    kinds: set[str] = set()

    def clean(text: str) -> str:
        cleaned, found = masked(text)
        kinds.update(kind.value for kind in found)
        return cleaned

    messages = tuple(Turn(role=turn.role, content=clean(turn.content)) for turn in event.messages)
    answer = clean(event.answer)
    if kinds and action is PersonalDataAction.DROP:
        return None
    return event.model_copy(update={"messages": messages, "answer": answer, "masked": tuple(sorted(kinds))})


def texts_of(event: GenerationRecorded) -> bytes:
    """Its texts as an object. The id makes it this answer's own: it can be deleted with it."""
    content = {
        "generation_id": event.generation_id,
        "messages": [{"role": turn.role, "content": turn.content} for turn in event.messages],
        "answer": event.answer,
    }
    return json.dumps(content, ensure_ascii=False).encode()


def with_texts_apart(event: GenerationRecorded, content: Blob) -> GenerationRecorded:
    """The answer whose texts are in the object store."""
    return event.model_copy(update={"messages": (), "answer": "", "content": content})
