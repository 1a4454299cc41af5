import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.trainer.cpu_priority import NICE

SHOWN = """
import os, subprocess, threading
from services.trainer import cpu_priority
cpu_priority.lower()
def nice(): print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)
nice()
thread = threading.Thread(target=nice)
thread.start(); thread.join()
subprocess.run(["nice"])
"""


def test_a_process_its_threads_and_what_it_starts_have_the_low_priority() -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN], start_new_session=True, capture_output=True, check=True)
    assert done.stdout.split() == [str(NICE).encode()] * 3


def test_a_priority_that_is_lower_already_is_kept() -> None:
    done = subprocess.run(
        ["nice", "-n", str(NICE + 5), sys.executable, "-c", SHOWN],
        start_new_session=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [str(NICE + 5).encode()] * 3


def test_the_session_of_the_caller_keeps_its_priority() -> None:
    """A process that leads no session must not lower what others of its session have."""
    if not (autogroup := Path("/proc/self/autogroup")).exists():
        pytest.skip("this kernel weighs no sessions")
    before = autogroup.read_text()
    subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, check=True)
    assert autogroup.read_text() == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == 0
