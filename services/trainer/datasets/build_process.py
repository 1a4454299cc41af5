"""Runs the build subprocess and reads its outcome."""

import signal

from services.trainer.child_process import Crashed, bare_environment, child, log_tail
from services.trainer.datasets.build_fault import BuildFault, CannotBuild
from services.trainer.datasets.worker.progress_file import BuildPosition, BuildPositionFile
from services.trainer.datasets.worker.spec import BuildOutcome, BuildSpec, outcome_adapter


class BuildCrashed(Crashed):
    """The build subprocess ended without an outcome: killed, or a defect. `place` is where it was in its work."""

    what = "build process"

    def __init__(self, status: int, tail: str, place: BuildPosition) -> None:
        super().__init__(status, tail)
        self.how = f"by signal {-status}" if status < 0 else f"with status {status}"
        self.place = place


async def run_process(spec: BuildSpec) -> BuildOutcome:
    """The outcome of the build subprocess of this spec.

    Raises:
        CannotBuild: it ended itself, as native code does that gets no more memory.
        BuildCrashed: it died otherwise.
    """
    spec_file, log = spec.work / "spec.json", spec.work / "build.log"
    spec_file.touch(mode=0o600)
    spec_file.write_text(spec.model_dump_json())
    async with child(
        "services.trainer.datasets.worker", str(spec_file), environment=_environment(), log=log
    ) as process:
        assert process.stdout is not None
        answer = await process.stdout.read()
        status = await process.wait()
    place = BuildPositionFile(spec.work).read()
    if status == -signal.SIGABRT:
        wanting = f"{place.name}: the build process gave up, as it does beyond {spec.memory_bytes} bytes of memory"
        expected = "smaller rows, or a higher LORAFLEET_BUILD_MEMORY_BYTES"
        raise CannotBuild(BuildFault(field=place.field, value=wanting, expected=expected))
    if status != 0 or not answer.strip():
        raise BuildCrashed(status, log_tail(log), place)
    return outcome_adapter.validate_json(answer)


def _environment() -> dict[str, str]:
    return bare_environment(
        ARROW_DEFAULT_MEMORY_POOL="system",  # the others reserve a gigabyte, which the memory limit would count
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
