"""What generators made, and what of it was of no use."""

from pydantic import BaseModel, Field


class GeneratorCount(BaseModel):
    """What one generator did. What it made may still be dropped by filters."""

    made: int = 0
    requests: int = 0
    """Answers that a language model gave."""
    equal: int = 0
    """Answers that were dropped as repetitions of what was there already."""
    blank: int = 0
    cut: int = 0
    """Answers that were dropped since they stopped at `max_tokens`."""
    model: str = ""


class GenerationReport(BaseModel):
    """Counts of each generator by its name."""

    generators: dict[str, GeneratorCount] = Field(default_factory=dict)

    def of(self, name: str) -> GeneratorCount:
        """The count of a generator, made at first use."""
        return self.generators.setdefault(name, GeneratorCount())
