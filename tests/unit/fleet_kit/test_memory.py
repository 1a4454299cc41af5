"""Readings of folders laid out as Linux does."""

from pathlib import Path

import pytest

from fleet_kit.memory import Reading, available, read, resident, tightest

GIB = 1024**3


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MACHINE = {
    "proc/meminfo": f"MemTotal:       {16 * 1024**2} kB\nMemFree:  1 kB\nMemAvailable:   {12 * 1024**2} kB\n",
    "proc/self/status": f"Name:\tpython\nVmRSS:\t{2 * 1024**2} kB\n",
}


@pytest.mark.requirement("AS-6.1")
def test_without_cgroups_the_machine_is_the_limit(tmp_path: Path) -> None:
    root = lay_out(tmp_path, MACHINE)
    assert read(root) == [Reading("machine", 4 * GIB, 16 * GIB)]
    assert resident(root) == 2 * GIB


@pytest.mark.requirement("AS-6.1")
def test_a_cgroup_v2_limit_counts_without_idle_file_pages_and_so_does_that_of_its_parent(tmp_path: Path) -> None:
    own, parent = "sys/fs/cgroup/pods/one", "sys/fs/cgroup/pods"
    root = lay_out(
        tmp_path,
        {
            **MACHINE,
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/cgroup.controllers": "memory cpu\n",
            f"{own}/memory.max": "max\n",
            f"{own}/memory.current": f"{GIB}\n",
            f"{parent}/memory.max": f"{4 * GIB}\n",
            f"{parent}/memory.current": f"{3 * GIB}\n",
            f"{parent}/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file 7\n",
        },
    )
    assert tightest(read(root)) == Reading("cgroup v2", 2 * GIB, 4 * GIB)


@pytest.mark.requirement("AS-6.1")
def test_a_cgroup_v1_limit_counts_where_there_is_one(tmp_path: Path) -> None:
    own = "sys/fs/cgroup/memory/docker/abc"
    root = lay_out(
        tmp_path,
        {
            **MACHINE,
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
            f"{own}/memory.limit_in_bytes": f"{2 * GIB}\n",
            f"{own}/memory.usage_in_bytes": f"{2 * GIB}\n",
            f"{own}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{9 * GIB}\n",
        },
    )
    assert tightest(read(root)) == Reading("cgroup v1", 3 * GIB // 2, 2 * GIB)


def test_inside_a_container_whose_cgroup_path_is_the_hosts_the_mount_itself_is_read(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../host/path\n",
            "sys/fs/cgroup/cgroup.controllers": "memory\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/memory.current": f"{GIB // 2}\n",
        },
    )
    assert read(root) == [Reading("cgroup v2", GIB // 2, GIB)]


def test_a_limit_of_its_own_is_held_against_what_the_process_keeps_resident(tmp_path: Path) -> None:
    assert tightest(read(lay_out(tmp_path, MACHINE), 4 * GIB)) == Reading("process", 2 * GIB, 4 * GIB)


def test_a_system_without_these_files_says_nothing(tmp_path: Path) -> None:
    assert tightest(read(tmp_path, 1)) is None


def test_this_machine_can_be_read() -> None:
    reading = tightest(read())
    assert reading is not None
    assert 0 < reading.share < 1.5
    assert resident() > 0


def test_what_is_available_is_bounded_by_the_cgroups_parent_too(tmp_path: Path) -> None:
    own, parent = "sys/fs/cgroup/pods/one", "sys/fs/cgroup/pods"
    root = lay_out(
        tmp_path,
        {
            **MACHINE,
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/cgroup.controllers": "memory cpu\n",
            f"{own}/memory.max": f"{8 * GIB}\n",
            f"{own}/memory.current": f"{GIB}\n",
            f"{parent}/memory.max": f"{4 * GIB}\n",
            f"{parent}/memory.current": f"{3 * GIB}\n",
        },
    )
    assert available(root) == 4 * GIB


def test_what_is_available_without_a_cgroup_is_what_the_machine_has_left(tmp_path: Path) -> None:
    assert available(lay_out(tmp_path / "machine", MACHINE)) == 12 * GIB
    assert available(tmp_path / "nothing") == 0
