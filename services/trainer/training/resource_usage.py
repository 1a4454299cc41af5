"""What a training costs in processor time and energy, measured where the system reports it."""

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path

from services.trainer.training.protocol import ResourceUsage

_RAPL = Path("/sys/class/powercap")


class Meter:
    """Counts from its making: processor seconds of this process and the children it waited for, and energy.

    Energy is what the processor packages count themselves (RAPL, Linux on Intel and AMD): of the whole machine, other
    work included. None where the counters cannot be read, as in most containers.
    """

    def __init__(self, counters: Path = _RAPL) -> None:
        self._folder = counters
        self._since = time.monotonic()
        self._processor = _processor_seconds()
        self._counters = _energy(counters)

    def read(self) -> ResourceUsage:
        """What it has cost so far."""
        return ResourceUsage(
            seconds=time.monotonic() - self._since,
            processor_seconds=_processor_seconds() - self._processor,
            joules=self._joules(),
        )

    def _joules(self) -> float | None:
        now = _energy(self._folder)
        if not self._counters or now.keys() != self._counters.keys():
            return None
        total = 0
        for name, (before, largest) in self._counters.items():
            moved = now[name][0] - before
            # The counter wraps once it is full; more than one wrap cannot be seen.
            total += moved if moved >= 0 else moved + largest
        return total / 1e6


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _energy(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Package → (microjoules, where its counter wraps); sub-zones (`:0:1`) are part of their package."""
    found: dict[str, tuple[int, int]] = {}
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        try:
            spent = int((zone / "energy_uj").read_text())
            largest = int((zone / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
        found[zone.name] = (spent, largest)
    return found


def hardware() -> dict[str, str]:
    """Processor, cores, memory and GPU of this machine, in words."""
    import torch

    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    described = {
        "processor": processor_name(),
        "cores": str(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else str(os.cpu_count()),
        "memory": f"{pages * page / 2**30:.1f} GiB",
    }
    if torch.cuda.is_available():
        described["gpu"] = ", ".join(torch.cuda.get_device_name(one) for one in range(torch.cuda.device_count()))
    return described


def processor_name() -> str:
    """The processor's model, as Linux names it; `unknown` where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or "unknown"
