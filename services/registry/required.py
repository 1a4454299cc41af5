"""What a policy may require of an evaluation beside its score: least metrics, and a least rate of preferred answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean from 0 to 1 over `samples`, with its interval."""

    value: float
    ci_low: float
    ci_high: float
    samples: int


@dataclass(frozen=True, slots=True)
class Preferred:
    """How often a version's answers were preferred to those of `compared_with`, ties as half."""

    compared_with: str
    win_rate: Measured


def unmet_metric(least: Mapping[str, float], found: Mapping[str, Measured], *, confident: bool) -> str:
    """The first metric that was not measured or is below its least value (the lower end, if confident); or empty."""
    for name, bound in sorted(least.items()):
        if name not in found:
            return f"metric {name} was not measured, and the policy's minimum is {bound:g}"
        if below := _below(found[name], bound, confident):
            return f"metric {name}: {below}"
    return ""


def unmet_preference(least: float | None, found: Preferred | None, replaces: str, *, confident: bool) -> str:
    """Why the answers are not preferred often enough to those of the version that it would replace; or empty."""
    if least is None or not replaces:
        return ""
    if found is None or found.compared_with != replaces:
        return f"its answers were not compared pair by pair with those of {replaces}, which it would replace"
    if below := _below(found.win_rate, least, confident):
        return f"answers preferred to those of {replaces}: {below}"
    return ""


def _below(rate: Measured, bound: float, confident: bool) -> str:
    value = min(rate.value, rate.ci_low) if confident else rate.value
    if value >= bound:
        return ""
    which = "lower end" if confident else "value"
    shown = f"{rate.value:.2f} [{rate.ci_low:.2f}, {rate.ci_high:.2f}]"
    return f"{shown} over {rate.samples}, whose {which} is below the policy's minimum of {bound:g}"
