"""Semantic versions of a family and how the next one is chosen (semver.org 2.0.0, numbers only)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet_events.v1 import Bump

SEMVER = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
SIGNIFICANT_IMPROVEMENT = 0.10
"""Part by which the validation loss has to fall on the same data set to make a version `minor`."""


class InvalidVersion(ValueError):
    """The text is no version of the form MAJOR.MINOR.PATCH."""


@dataclass(frozen=True, order=True, slots=True)
class SemVer:
    """MAJOR.MINOR.PATCH, ordered number by number. No pre-release or build parts."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> SemVer:
        """Read `1.2.3`. Raises InvalidVersion for anything else, leading zeros and a leading v included."""
        found = SEMVER.fullmatch(text)
        if found is None:
            raise InvalidVersion(f"version {text!r} is not MAJOR.MINOR.PATCH, for example 1.4.0")
        return cls(*(int(number) for number in found.groups()))

    def bump(self, part: Bump) -> SemVer:
        """The next version after this one: the part raised by one, every part right of it zero."""
        match part:
            case Bump.MAJOR:
                return SemVer(self.major + 1, 0, 0)
            case Bump.MINOR:
                return SemVer(self.major, self.minor + 1, 0)
            case Bump.PATCH:
                return SemVer(self.major, self.minor, self.patch + 1)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


FIRST = SemVer(1, 0, 0)


@dataclass(frozen=True, slots=True)
class VersionBasis:
    """What of a version decides which number the next one raises."""

    base_model_revision: str
    dataset_id: str | None = None
    validation_loss: float | None = None


def bump_rule(latest: VersionBasis, new: VersionBasis, requested: Bump | None) -> Bump:
    """Which part to raise (LA-1.2).

    A new base model is a breaking change, also against the request. Otherwise the request decides, and where it
    has none: minor when the validation loss fell significantly on the same data set (losses on different
    data sets do not compare), patch in every other case.
    """
    if new.base_model_revision != latest.base_model_revision:
        return Bump.MAJOR
    if requested is not None:
        return requested
    if (
        new.validation_loss is not None
        and latest.validation_loss is not None
        and new.dataset_id is not None
        and new.dataset_id == latest.dataset_id
        and new.validation_loss <= latest.validation_loss * (1 - SIGNIFICANT_IMPROVEMENT)
        and latest.validation_loss > 0
    ):
        return Bump.MINOR
    return Bump.PATCH
