"""How much memory this process may use: what Linux reports of the machine, of every cgroup around it, and of itself.

A container is killed at its cgroup's limit, however much the machine has left, and a cgroup's parents bound it too; so
every limit is read. Of a cgroup's memory, pages of files not used lately do not count: they are given up
before anything is killed (the kubelet's "working set").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 2**60
"""From here on cgroup v1 means "no limit": it reports the largest page-aligned int64."""
MACHINE = "machine"
"""Source of the reading that has no limit of anybody's: `limit` is what is installed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`used` of `limit` bytes, as read from `source`."""

    source: str
    used: int
    limit: int

    @property
    def share(self) -> float:
        return self.used / self.limit


def tightest(readings: list[Reading]) -> Reading | None:
    """The one that is nearest to its limit."""
    return max(readings, key=lambda one: one.share, default=None)


def read(root: Path = Path("/"), process_limit: int = 0) -> list[Reading]:
    """Every limit that holds for this process: the machine's, its cgroups' (v2 and v1) and its own.

    `process_limit`: bytes that it shall keep resident at most; 0 is no limit. `root`: where proc and sys lie. What
    cannot be read is left out; on a system without these files nothing is reported.
    """
    return [*_machine(root), *_cgroup2(root), *_cgroup1(root), *_own(root, process_limit)]


def available(root: Path = Path("/")) -> int:
    """Bytes that this process and its children may use: the lowest limit of its cgroups or what the machine has
    available, whichever is less; 0 where neither is known."""
    readings = read(root)
    return min((one.limit - one.used if one.source == MACHINE else one.limit for one in readings), default=0)


def resident(root: Path = Path("/")) -> int:
    """Bytes of this process in memory (RSS), 0 where that is not known."""
    return _table(root / "proc/self/status", ":").get("VmRSS", 0) * 1024


def _machine(root: Path) -> Iterator[Reading]:
    memory = _table(root / "proc/meminfo", ":")
    if memory.get("MemTotal") and "MemAvailable" in memory:
        total, available = memory["MemTotal"] * 1024, memory["MemAvailable"] * 1024
        yield Reading(MACHINE, total - available, total)


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
