"""After an erasure: the recipe of the data set that a version learned from is built again before a training on it.

The build leaves the erased records out, see `datasets/worker/inputs.py`. A build of the recipe's name that somebody
requested since the erasure does as well: so it is tried again after a failure.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet_events import v1
from fleet_kit.db import Connection
from fleet_kit.errors import Problem
from fleet_kit.transaction import Transaction
from services.trainer.datasets import quotas
from services.trainer.datasets.build_fault import CannotBuild
from services.trainer.datasets.build_state import BuildState, DatasetBuild
from services.trainer.datasets.store import builds
from services.trainer.retraining.context import RetrainingContext
from services.trainer.retraining.store import rebuilds

REBUILDING = "rebuilding"


@dataclass(frozen=True)
class Rebuild:
    """The build that the version's data set came of, how many records it had, and the newest one since the erasure."""

    before: DatasetBuild
    samples: int
    since: DatasetBuild | None
    erasures: tuple[str, ...]

    @property
    def build_id(self) -> str:
        """Of the build that is requested: one for these erasures, whichever trainer requests it."""
        named = "\n".join((self.before.recipe.domain, self.before.recipe.name, *sorted(self.erasures)))
        return f"erased-{hashlib.sha256(named.encode()).hexdigest()[:24]}"

    @property
    def dataset_id(self) -> str:
        """What is trained on; empty until it is built."""
        built = self.since is not None and self.since.state is BuildState.SUCCEEDED
        return (self.since.dataset_id or "") if self.since is not None and built else ""

    @property
    def hindrance(self) -> tuple[str, str] | None:
        """Why nothing can be trained on it yet: a word and a sentence."""
        name = self.before.recipe.name
        if self.dataset_id:
            return None
        if self.since is None or not self.since.state.final:
            return REBUILDING, f"data set {name} is built again without the erased records"
        return "rebuild_failed", f"data set {name} cannot be built again: {CannotBuild(*self.since.faults)}"


async def find_rebuild(connection: Connection, family: str, active: str, erasures: Sequence[str]) -> Rebuild | None:
    """The build to repeat for the active version, or without one ("") for the newest that learned from the records.

    None where that version was trained on live records: each training selects those itself.
    """
    found = await rebuilds.find_learned(connection, family, active, erasures)
    if found is None:
        return None
    before, samples = found
    since = await rebuilds.find_since(connection, before.recipe.domain, before.recipe.name, erasures)
    return Rebuild(before, samples, since, tuple(erasures))


async def request_rebuild(
    tx: Transaction, rebuild: Rebuild, by: str, now: datetime, service: RetrainingContext
) -> None:
    """Queue the build; where the domain has too many open ones the next evaluation does."""
    recipe = rebuild.before.recipe
    try:
        await quotas.check_build(tx.connection, recipe.domain, service.settings)
    except Problem:
        return
    build = DatasetBuild(rebuild.build_id, recipe, by, (recipe.domain,), now)
    await builds.add_build(tx.connection, build)
    await tx.emit(v1.DatasetQueued(build_id=build.build_id, domain=recipe.domain), entity=build.build_id)
