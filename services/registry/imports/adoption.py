"""A folder in any known form becomes an Arrow artifact and a PEFT checkpoint. Runs in the inspection process."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lora_core.errors import AdapterError
from services.registry.checkpoint import CannotServe, Contents, check, convert, refusal
from services.registry.imports.names import ARROW, CONFIG, EXPECTED, GGUF, MLX_WEIGHTS, PEFT_WEIGHTS, pickled

if TYPE_CHECKING:
    from lora_core.card import LoRACard
    from lora_core.layer_shapes import LayerShapes

Form = Literal["peft", "mlx", "arrow", "gguf"]


@dataclass(frozen=True, slots=True)
class OriginalFile:
    """A file as it came, before it was converted."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a folder. variants: as `LoRACard.variants`, what it has beyond plain LoRA."""

    form: Form
    contents: Contents
    variants: tuple[str, ...]
    files: tuple[OriginalFile, ...]


@dataclass(frozen=True, slots=True)
class BaseFolder:
    """The base model that it is for: its folder, and the shapes of its layers."""

    folder: Path
    shapes: LayerShapes


def adopt(folder: Path, name: str, artifact: Path, peft: Path, base: BaseFolder) -> Adopted:
    """Convert the one adapter below `folder`: an Arrow artifact at `artifact`, and its PEFT files in the folder `peft`.

    The files of a PEFT folder are kept as they came; those of the other forms are converted to PEFT, which trainings
    continue from and vLLM loads.

    Raises CannotServe with the field at fault: none or several adapters, everything that `checkpoint.convert` refuses.
    """
    form, files = _find(folder)
    seen = tuple(_original(file, folder) for file in files)
    peft.mkdir(parents=True)
    try:
        if form == "peft":
            for file in files:
                shutil.move(file, peft / file.name)
            contents = convert(peft, name, artifact, base.shapes)
            return Adopted(form, contents, _load(artifact).variants, seen)
        card = replace(_READERS[form](files, base), name=name)
        contents = check(card, base.shapes)
        _write(card, artifact, peft, base.shapes)
    except ImportError as error:
        raise CannotServe("files", f"{form} files cannot be read here: {error}") from error
    except AdapterError as error:
        raise refusal(error, files[-1].name) from error
    return Adopted(form, contents, card.variants, seen)


def _find(folder: Path) -> tuple[Form, tuple[Path, ...]]:
    """The form and the files of the only adapter below a folder; of several the one that lies above all others."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    found = [one for place in sorted({file.parent for file in files}) for one in _forms_in(place)]
    if not found:
        raise _nothing(folder, files)
    top = min(len(files[0].parts) for _, files in found)
    highest = [one for one in found if len(one[1][0].parts) == top]
    if len(highest) > 1:
        names = ", ".join(str(files[-1].relative_to(folder))[:100] for _, files in highest[:10])
        raise CannotServe("files", f"several adapters: {names}; import one at a time")
    return highest[0]


def _forms_in(place: Path) -> list[tuple[Form, tuple[Path, ...]]]:
    config, peft, mlx = (place / name for name in (CONFIG, PEFT_WEIGHTS, MLX_WEIGHTS))
    if config.is_file() and peft.is_file():
        return [("peft", (config, peft))]
    if config.is_file() and mlx.is_file():
        return [("mlx", (config, mlx))]
    single: dict[str, Form] = {GGUF: "gguf", ARROW: "arrow"}
    return [
        (single[file.suffix.lower()], (file,))
        for file in sorted(place.iterdir())
        if file.is_file() and file.suffix.lower() in single
    ]


def _nothing(folder: Path, files: list[Path]) -> CannotServe:
    names = [str(file.relative_to(folder)) for file in files]
    if found := pickled(names):
        return CannotServe("files", f"{found[:200]} may hold pickled code, which is never read; send {PEFT_WEIGHTS}")
    shown = ", ".join(name[:100] for name in names[:10]) or "nothing"
    return CannotServe("files", f"no adapter in what was given ({shown}), expected {EXPECTED}")


def _original(file: Path, folder: Path) -> OriginalFile:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return OriginalFile(file.relative_to(folder).as_posix(), digest, file.stat().st_size)


def _from_mlx(files: tuple[Path, ...], base: BaseFolder) -> LoRACard:
    from lora_core.interop import from_mlx

    return from_mlx(files[0].parent, base.folder)


def _from_gguf(files: tuple[Path, ...], base: BaseFolder) -> LoRACard:
    from lora_core.interop import from_gguf

    return from_gguf(files[0], base.folder)


def _from_arrow(files: tuple[Path, ...], _: BaseFolder) -> LoRACard:
    return _load(files[0])


_READERS: Mapping[Form, Callable[[tuple[Path, ...], BaseFolder], LoRACard]] = {
    "mlx": _from_mlx,
    "gguf": _from_gguf,
    "arrow": _from_arrow,
}


def _load(file: Path) -> LoRACard:
    from lora_core.format.arrow_format import LoRAFormat

    return LoRAFormat.load(file)


def _write(card: LoRACard, artifact: Path, peft: Path, shapes: LayerShapes) -> None:
    """The artifact is made of the PEFT files: registering them again gives the same one."""
    from lora_core.format.arrow_format import LoRAFormat
    from lora_core.interop import from_peft, to_peft

    to_peft(card, peft)
    LoRAFormat.save(from_peft(peft, card.name, shapes), artifact)
