"""Prints a data set's file as JSON lines: `… -m services.trainer.datasets.worker.export FILE [train|validation]`.

A process of its own, because reading Parquet takes a library of 100 MB that the service shall not load. It ends when
the reader of its lines ends.
"""

import os
import sys
from pathlib import Path

from services.trainer.datasets.dataset_file import lines


def main(arguments: list[str]) -> int:
    """Print the records, of one side of the split or of both."""
    path, split = Path(arguments[0]), arguments[1] if len(arguments) > 1 else None
    try:
        for line in lines(path, split):
            sys.stdout.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # There is no reader any more; what is still in our buffer must not fail a second time at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
