"""Runs an answer's code and then its sample's tests, in one namespace: `python -I -S harness.py`, in the sandbox.

Standard library alone. It reads {"code", "tests", "token"} on standard input and prints one JSON object: the token
where all tests ran to their end, else where and why not. What code and tests print goes nowhere. The token proves that
the tests' last line was reached: a program that ends early has not printed it.
"""

import json
import os
import sys
import traceback

_MESSAGE = 300
"""Characters of an error that are passed on."""


def _run() -> dict[str, str]:
    order = json.load(sys.stdin)
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    namespace = {"__name__": "solution"}
    answer = {"out": str(out)}
    for part in ("code", "tests"):
        try:
            exec(compile(order[part], f"<{part}>", "exec"), namespace)  # noqa: S102 - confined, and what it is for
        except BaseException as error:  # all that the code raises, SystemExit among it, is its answer
            lines = [
                frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == f"<{part}>"
            ]
            where = f"line {lines[-1]} of the {part}" if lines else f"the {part}"
            return answer | {"fault": f"{where}: {type(error).__name__}: {error}"[:_MESSAGE]}
    return answer | {"token": order["token"]}


if __name__ == "__main__":
    found = _run()
    os.write(int(found.pop("out")), json.dumps(found).encode())
    os._exit(0)
