"""How much of its memory this process may still take: readings of Linux, and the ladder of levels made of them.

A container is killed at its cgroup's limit, however much the machine has left; so every limit that holds here is read
and the tightest one counts. Of a cgroup's memory, pages of files that nobody has used lately do not count: they are
given up before anything is killed (the kubelet's "working set").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

UNLIMITED = 2**60
"""From here on cgroup v1 means "no limit": it reports the largest page-aligned int64."""


class Level(IntEnum):
    """low: adapters may be preloaded. medium: nothing is brought in but what requests need. high: adapters that have
    been idle for long are evicted. critical: all are but those in use and pinned ones."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """`used` of `limit` bytes, as `source` says."""

    source: str
    used: int
    limit: int

    @property
    def share(self) -> float:
        return self.used / self.limit


@dataclass(frozen=True, slots=True)
class Ladder:
    """The share of memory from which each level begins. A level is left `margin` below where it begins, so that
    what is given back by its own actions does not make it come and go."""

    medium: float = 0.75
    high: float = 0.85
    critical: float = 0.95
    margin: float = 0.05

    def step(self, level: Level, share: float) -> Level:
        """The level after a reading, from the one before."""
        begins = {Level.MEDIUM: self.medium, Level.HIGH: self.high, Level.CRITICAL: self.critical}
        reached = max((one for one, at in begins.items() if share >= at), default=Level.LOW)
        kept = max((one for one, at in begins.items() if share >= at - self.margin), default=Level.LOW)
        return max(reached, min(level, kept))


def tightest(readings: list[Reading]) -> Reading | None:
    """The one that is nearest to its limit."""
    return max(readings, key=lambda one: one.share, default=None)


def read(root: Path = Path("/"), process_limit: int = 0) -> list[Reading]:
    """Every limit that holds for this process: the machine's, its cgroups' (v2 and v1) and its own.

    `process_limit`: bytes that it shall keep resident at most; 0 is no limit. `root`: where proc and sys lie. What
    cannot be read is left out; on a system without these files nothing is said.
    """
    return [*_machine(root), *_cgroup2(root), *_cgroup1(root), *_own(root, process_limit)]


def resident(root: Path = Path("/")) -> int:
    """Bytes of this process in memory (RSS), 0 where that is not known."""
    return _table(root / "proc/self/status", ":").get("VmRSS", 0) * 1024


def _machine(root: Path) -> Iterator[Reading]:
    memory = _table(root / "proc/meminfo", ":")
    if memory.get("MemTotal") and "MemAvailable" in memory:
        total, available = memory["MemTotal"] * 1024, memory["MemAvailable"] * 1024
        yield Reading("machine", total - available, total)


def _own(root: Path, limit: int) -> Iterator[Reading]:
    if limit and (used := resident(root)):
        yield Reading("process", used, limit)


def _cgroup2(root: Path) -> Iterator[Reading]:
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        if controllers == "" and (mount / "cgroup.controllers").exists():
            for folder in _upwards(mount, path):
                limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
                if limit and used is not None:
                    inactive = _table(folder / "memory.stat", " ").get("inactive_file", 0)
                    yield Reading("cgroup v2", max(0, used - inactive), limit)


def _cgroup1(root: Path) -> Iterator[Reading]:
    mount = root / "sys/fs/cgroup/memory"
    for controllers, path in _memberships(root):
        if "memory" in controllers.split(","):
            for folder in _upwards(mount, path):
                limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
                if limit and limit < UNLIMITED and used is not None:
                    inactive = _table(folder / "memory.stat", " ").get("total_inactive_file", 0)
                    yield Reading("cgroup v1", max(0, used - inactive), limit)


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """(controllers, path) of each hierarchy; no controllers is version 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield controllers, path


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup's folder and those above it, whose limits hold as well. Within a container only the last may be
    visible: the path is then one of the host's."""
    folder = mount / path.strip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _table(file: Path, separator: str) -> dict[str, int]:
    """Lines of a name and a number, units after it left out."""
    rows: dict[str, int] = {}
    for line in _text(file).splitlines():
        name, _, rest = line.partition(separator)
        number = rest.split()
        if number and number[0].isdigit():
            rows[name] = int(number[0])
    return rows
