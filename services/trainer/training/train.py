"""The training subprocess: `python -m services.trainer.training.train SPEC.json`, progress as JSON lines on stdout.

It knows files, not the bus, the database or the object store: the supervisor in the service moves things in and out.
"""

import sys
from pathlib import Path

from pydantic import BaseModel

from services.trainer.lifeline import claim_stdout, die_with
from services.trainer.training.progress import Refused, TrainingSpec


def main(spec_file: str) -> int:
    """Train what the spec says. 0 when finished, paused or refused with a reason, another status for a crash."""
    spec = TrainingSpec.model_validate_json(Path(spec_file).read_bytes())
    die_with(spec.supervisor)
    out = claim_stdout()

    def tell(message: BaseModel) -> None:
        out.write(message.model_dump_json() + "\n")
        out.flush()

    # Imported here: it takes seconds, and the guards above must stand before.
    from services.trainer.training.run import CannotTrain, run

    try:
        run(spec, tell)
    except CannotTrain as refusal:
        tell(Refused(reason=str(refusal)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
