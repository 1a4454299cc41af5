"""Supervision of one process, tried with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fleet_cli.stack.process import Command, Supervised, end_left_over, started_at

SLEEP = ("sleep", "600")


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    return started_at(pid) != 0.0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def supervised(*arguments: str, grace: float = 5.0) -> Supervised:
        one = Supervised("part", Command(arguments, stop_grace=grace), logs=tmp_path, run=tmp_path)
        made.append(one)
        return one

    yield supervised
    for one in made:
        one.stop()


def test_a_killed_process_is_started_again(make: Callable[..., Supervised]) -> None:
    part = make(*SLEEP)
    part.start()
    first = part.kill()
    assert eventually(lambda: part.pid not in (None, first))
    assert part.exits == [-signal.SIGKILL]


def test_a_process_that_keeps_crashing_is_started_less_and_less_often(make: Callable[..., Supervised]) -> None:
    part = make("sh", "-c", "echo broken; exit 7")
    part.start()
    assert eventually(lambda: part.tail().count("starts again") >= 3)
    assert set(part.exits) == {7}
    assert "broken" in part.tail()
    pauses = [float(pause) for pause in re.findall(r"exited with 7, starts again in ([\d.]+) s", part.tail())]
    assert pauses[:3] == [0.5, 1.0, 2.0]


def test_stop_ends_a_process_that_ignores_the_polite_signal(make: Callable[..., Supervised], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    part = make("sh", "-c", f"trap '' TERM; touch {ready}; while true; do sleep 0.1; done", grace=0.3)
    part.start()
    pid = part.pid
    assert pid is not None
    assert eventually(ready.exists)
    part.stop()
    assert not alive(pid)
    assert part.pid is None
    assert part.exits == []


def test_stop_during_the_pause_after_a_crash_returns_at_once(make: Callable[..., Supervised]) -> None:
    part = make("false")
    part.start()
    assert eventually(lambda: len(part.exits) >= 3)
    began = time.monotonic()
    part.stop()
    assert time.monotonic() - began < 1


def test_what_a_killed_process_had_started_ends_with_it(make: Callable[..., Supervised], tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    part = make("sh", "-c", f"sleep 600 & echo $! > {note}; wait")
    part.start()
    assert eventually(lambda: note.exists() and note.read_text().strip())
    grandchild = int(note.read_text())
    part.crash()
    assert eventually(lambda: not alive(grandchild))


def test_a_crashed_part_stays_down_until_it_is_started(make: Callable[..., Supervised]) -> None:
    part = make(*SLEEP)
    part.start()
    part.crash()
    time.sleep(0.8)
    assert part.pid is None
    part.start()
    assert part.pid is not None


def test_processes_die_with_the_parent_however_it_dies(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from fleet_cli.stack.process import Command, Supervised
part = Supervised("part", Command({SLEEP!r}), logs=Path({str(tmp_path)!r}), run=Path({str(tmp_path)!r}))
part.start()
print(part.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert eventually(lambda: psutil.Process(child).name() == "sleep")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: not alive(child))


def test_left_over_processes_are_ended_by_their_record(tmp_path: Path) -> None:
    orphan = subprocess.Popen(SLEEP, start_new_session=True)
    record = {"pid": orphan.pid, "started": started_at(orphan.pid)}
    (tmp_path / "nats.json").write_text(json.dumps(record))
    assert end_left_over(tmp_path) == ["nats"]
    assert orphan.wait(5) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_only_has_the_same_id_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        record = {"pid": stranger.pid, "started": started_at(stranger.pid) - 1000}
        (tmp_path / "nats.json").write_text(json.dumps(record))
        assert end_left_over(tmp_path) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "null"])
def test_a_record_that_was_cut_off_does_not_stop_the_next_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "nats.json").write_text(content)
    assert end_left_over(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_part_does_not_read_our_terminal_and_is_out_of_reach_of_its_ctrl_c(make: Callable[..., Supervised]) -> None:
    part = make(*SLEEP)
    part.start()
    pid = part.pid
    assert pid is not None
    assert os.getpgid(pid) != os.getpgid(0)
    assert eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
