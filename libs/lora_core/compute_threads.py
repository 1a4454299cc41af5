"""How many threads compute, for each thread that asks torch to: one of them has them all, the others compute alone.

libgomp keeps a pool of threads for each thread that has computed with several, for as long as that thread lives. Once
all pools together are more than there are cores, their threads no longer wait for work but sleep after every
operation, even where all pools but one are idle. Waking them costs more than most operations of a decode step take: a
step of 32 rows over 8 adapters took half as long again (torch 2.13, 2 cores; decision 22).
"""

import threading
from functools import cache

import torch


@cache
def default_threads() -> int:
    """What torch takes by itself: the cores, or OMP_NUM_THREADS. To be asked before anything else is set."""
    return torch.get_num_threads()


def compute_with(threads: int) -> None:
    """The calling thread computes with so many from now on, and threads that have not computed yet will do so alone."""
    default_threads()
    # A thread that computes for the first time takes the number that was set last, by whichever thread: asking counts.
    torch.set_num_threads(threads)
    torch.get_num_threads()
    others = threading.Thread(target=torch.set_num_threads, args=(1,), name="compute-threads")
    others.start()
    others.join()
