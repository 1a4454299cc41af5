"""One value of one plug-in: `python -I plug_in_process.py PATHS MODULE:FUNCTION`, in the sandbox.

It reads `{"sample": {...}, "answer": "..."}` on standard input and prints what the function gave, as JSON; or, with
status 3, why it gave nothing.
"""

import json
import os
import sys
from importlib import import_module

_REFUSED = 3
_MESSAGE = 300


def main(paths: str, reference: str) -> int:
    """Calls the plug-in once."""
    sys.path[:] = json.loads(paths)
    from services.evaluator.golden.samples import GoldenSample, Turn

    order = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a plug-in prints is no value
    turns = tuple(Turn(**turn) for turn in order["sample"].pop("history"))
    try:
        module, _, function = reference.partition(":")
        value = getattr(import_module(module), function)(
            GoldenSample(**order["sample"], history=turns), order["answer"]
        )
        os.write(out, json.dumps(value).encode())
    except Exception as error:  # a plug-in raises what it likes
        os.write(out, repr(error)[:_MESSAGE].encode())
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
