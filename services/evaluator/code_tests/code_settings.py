"""Settings of the tests that an answer's code has to pass."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class CodeSettings(BaseModel):
    """How the code of answers is run, and how many answers pass@k is measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(default=10.0, gt=0, le=600)
    """Of one answer with its tests."""
    memory_mb: int = Field(default=512, ge=32)
    """Address space of the interpreter."""
    at_once: int = Field(default=2, ge=1, le=64)
    """Interpreters side by side, of one replica: each may take its memory."""
    answers: int = Field(default=1, ge=1, le=100)
    """1: pass@1 is that of the judged answer. More: so many further answers are drawn at `temperature`."""
    pass_at: tuple[int, ...] = (1,)
    """The k of pass@k, each at most `answers`."""
    temperature: float = Field(default=0.8, gt=0, le=2)

    @field_validator("pass_at")
    @classmethod
    def _each_once(cls, pass_at: tuple[int, ...]) -> tuple[int, ...]:
        if not pass_at or min(pass_at) < 1 or len(set(pass_at)) < len(pass_at):
            raise ValueError("expected numbers from 1, each once")
        return pass_at

    @model_validator(mode="after")
    def _draws_enough(self) -> Self:
        if max(self.pass_at) > self.answers:
            raise ValueError(f"pass_at: {max(self.pass_at)} is above answers ({self.answers}); draw more answers")
        return self
