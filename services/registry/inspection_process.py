"""What runs apart: `python -m services.registry.inspection_process PARENT`. An order on stdin, an outcome on stdout."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

from services.registry.checkpoint import CannotServe, convert, open_artifact, preload
from services.registry.exports import check_arrow
from services.registry.imports.adoption import BaseFolder, adopt
from services.registry.imports.archive import unpack
from services.registry.inspection_order import Adopt, Convert, Fault, Limits, Open, Order, Outcome, Unpack

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Exit status 0 with an outcome, else a fault of ours with its traceback on standard error."""
    _die_with(int(sys.argv[1]))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an outcome
    order = Order.model_validate_json(sys.stdin.buffer.read())
    preload()  # before the limits, which are for the files
    _limit(order.limits)
    out.write(_outcome(order).model_dump_json())
    out.flush()


def _outcome(order: Order) -> Outcome:
    try:
        return _inspect(order)
    except CannotServe as error:
        return Outcome(fault=Fault(field=error.field, message=str(error)))
    except MemoryError:
        allowed = order.limits.memory >> 20
        return Outcome(fault=Fault(field="files", message=f"checking these files takes more than {allowed} MiB"))
    except OSError:
        raise  # a full disk is no fault of the files
    except Exception as error:
        # Readers raise AdapterError for everything they foresee; any other error that a file causes refuses it too.
        traceback.print_exc()
        return Outcome(fault=Fault(field="files", message=f"these files cannot be read ({type(error).__name__})"))


def _inspect(order: Order) -> Outcome:
    match order.work:
        case Convert(folder=folder, name=name, to=to, base=base):
            return Outcome(contents=convert(folder, name, to, base.layers))
        case Unpack(archive=archive, to=to, most=most):
            return Outcome(unpacked=unpack(archive, to, most))
        case Adopt() as work:
            model = BaseFolder(work.base_model, work.base.layers)
            return Outcome(adopted=adopt(work.folder, work.name, work.artifact, work.peft, model))
        case Open() as work:
            contents = open_artifact(work.artifact, work.checkpoint, work.base.layers)
            for field, file in work.forms:
                check_arrow(field, file, work.artifact)
            return Outcome(contents=contents)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def _limit(limits: Limits) -> None:
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    whole = math.ceil(limits.seconds + resource.getrusage(resource.RUSAGE_SELF).ru_utime)
    resource.setrlimit(resource.RLIMIT_CPU, (whole + 1, whole + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
