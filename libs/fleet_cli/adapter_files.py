"""The files of an adapter on this machine, in the formats that the registry imports."""

from __future__ import annotations

from pathlib import Path

from lorafleet.errors import BadInput

CONFIG = "adapter_config.json"
WEIGHTS = {"adapter_model.safetensors": "PEFT", "adapters.safetensors": "MLX"}
SINGLE = (".gguf", ".arrow")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
EXPECTED = (
    f"a folder with {CONFIG} and {' or '.join(WEIGHTS)} ({' or '.join(WEIGHTS.values())}), "
    f"one {' or '.join(SINGLE)} file, an archive ({', '.join(ARCHIVES)}), s3://BUCKET/PREFIX "
    "or OWNER/NAME[@REVISION][:PATH] of a hub"
)


def files_of(place: Path) -> list[Path]:
    """The files to send of a file or folder that exists; raises `BadInput` naming what is missing."""
    if place.is_file():
        if not place.name.lower().endswith((*SINGLE, *ARCHIVES)):
            raise BadInput("SOURCE", f"{place} is not an adapter; expected {EXPECTED}")
        return [place]
    names = {path.name: path for path in sorted(place.iterdir()) if path.is_file()}
    for weights in WEIGHTS:
        if weights in names and CONFIG in names:
            return [names[CONFIG], names[weights]]
    single = [path for name, path in names.items() if name.lower().endswith(SINGLE)]
    if len(single) == 1:
        return single
    if single:
        raise BadInput(
            "SOURCE", f"{place} contains {len(single)} adapters; name one of {', '.join(p.name for p in single)}"
        )
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".npz"))]
    found = f"; {pickles[0]} may hold pickled code, which is never read" if pickles else ""
    raise BadInput("SOURCE", f"{place} contains no adapter{found}; expected {EXPECTED}")
