"""How much memory this process and its children may use."""

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes")  # of cgroup v2 and v1
_MEMINFO = Path("/proc/meminfo")
_UNLIMITED = 1 << 60


def available_memory() -> int:
    """Bytes: the container's limit or what the machine has available, whichever is less; 0 where neither is told."""
    limits = [int(text) for file in _LIMITS if (text := _read(file).strip()).isdigit()]
    for line in _read(_MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            limits.append(int(value.split()[0]) * 1024)
    return min((one for one in limits if 0 < one < _UNLIMITED), default=0)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
