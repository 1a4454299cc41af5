"""`AdapterManifest`: what a catalogue shows of an adapter, read from its card's metadata and its file."""

import json
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, InvalidAdapter


class AdapterManifest(BaseModel):
    """All but name and file size come from the card's metadata, under the same keys.

    specialized_for: task types, comma-separated in the metadata. performance_metrics: a JSON object there.
    creation_date: ISO 8601 with a time zone. file_size: bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    base_model: str = Field(min_length=1)
    specialized_for: tuple[str, ...]
    training_data_size: int = Field(ge=0)
    performance_metrics: dict[str, float]
    file_size: int
    creation_date: datetime

    @classmethod
    def of(cls, card: LoRACard, file: Path | str) -> Self:
        """Raises InvalidAdapter for metadata that is missing or not what it should be, AdapterNotFound for the file."""
        file = Path(file)
        if not file.is_file():
            raise AdapterNotFound(f"no adapter file at {file}")
        known = {key: card.metadata[key] for key in cls.model_fields if key in card.metadata}
        tasks = tuple(task.strip() for task in known.pop("specialized_for", "").split(",") if task.strip())
        try:
            metrics = json.loads(known.pop("performance_metrics", "{}"))
        except ValueError:
            found = card.metadata["performance_metrics"]
            raise InvalidAdapter("metadata.performance_metrics", found, "a JSON object of numbers") from None
        own = {
            "name": card.name,
            "file_size": file.stat().st_size,
            "specialized_for": tasks,
            "performance_metrics": metrics,
        }
        try:
            return cls.model_validate(known | own)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidAdapter(f"metadata.{field}", card.metadata.get(field, "absent"), first["msg"]) from None
