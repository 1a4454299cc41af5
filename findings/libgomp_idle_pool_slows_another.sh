#!/usr/bin/env bash
# torch 2.13.0 for CPUs (with its own libgomp), x86-64, 2 cores. One would expect that a thread which once computed something and
# now waits for a lock costs nothing. It does: libgomp keeps a pool of threads for every thread that has computed with several
# of them, and once all pools together have more threads than there are cores, threads of every pool sleep right after each
# operation (its throttled spin count) in place of waiting for the next. Seen for products of 8 x [4, 576] and 8 x [576, 24],
# 600 in a row, on an AMD EPYC: 6.1 ms alone, 29.1 ms beside one idle pool, 5.9 ms once that thread has ended. A thread that
# calls `torch.set_num_threads(1)` before it computes makes no pool (6.1 ms). In the same release that number is also what
# threads get that compute for the first time later: one that set its own and has not computed yet computes with the
# other's. It fails where an idle pool costs less than a quarter, or a thread's own number lasts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat > "$folder/pools.py" <<'PYTHON'
import os
import statistics
import threading
import time

import torch

cores = len(os.sched_getaffinity(0))
assert cores > 1, "this needs several cores"
torch.set_num_threads(cores)
x, y = torch.randn(8, 4, 576), torch.randn(8, 576, 24)


def measured():
    times = []
    for _ in range(40):
        begun = time.perf_counter()
        for _ in range(600):
            torch.bmm(x, y)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def beside(threads):
    """The same beside a thread that has computed with so many threads, and waits; and once it has ended."""
    idle, end = threading.Event(), threading.Event()

    def other():
        torch.set_num_threads(threads)
        torch.randn(1_000_000).add_(1).sum()
        idle.set()
        end.wait()

    thread = threading.Thread(target=other)
    thread.start()
    idle.wait()
    found = measured()
    end.set()
    thread.join()
    return found


def own_number(asked):
    """What a thread computes with that set `cores`, before another thread sets 1."""
    found = []

    def first():
        torch.set_num_threads(cores)
        if asked:
            torch.get_num_threads()
        second = threading.Thread(target=torch.set_num_threads, args=(1,))
        second.start()
        second.join()
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    return found[0]


measured()
alone, pool, ended, single = measured(), beside(cores), measured(), beside(1)
print(f"{cores} cores: alone {alone:.1f} ms, beside an idle pool {pool:.1f}, once it has ended {ended:.1f}, "
      f"beside a thread that computes alone {single:.1f}")
numbers = own_number(asked=False), own_number(asked=True)
print(f"a thread's own number {cores} after another thread set 1: {numbers[0]}, asked for at once: {numbers[1]}")
assert pool > 1.25 * max(alone, ended, single), "an idle pool costs nothing"
assert numbers == (1, cores), "a thread's number is its own"
PYTHON
"$folder/venv/bin/python" "$folder/pools.py"
