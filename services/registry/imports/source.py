"""Where an import is fetched from, as its caller writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from services.registry.imports.adoption import OriginalFile
from services.registry.imports.names import BadPath, inner_path

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(
    rf"(?:hf://)?(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9][\w./-]{{0,254}}?))?(?P<path>(?::[^:]+)?)"
)
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,62})/(?P<prefix>.+)")
EXPECTED = "s3://BUCKET/PREFIX, or a Hugging Face repository as OWNER/NAME[@REVISION][:FOLDER_OR_FILE]"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of a model hub. revision: branch, tag or commit, empty for its main one. path: within it."""

    repository: str
    revision: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """Objects of a bucket below a prefix, or the one object of that name."""

    bucket: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an imported version comes from.

    form: peft, mlx, gguf or arrow. source: `upload`, or what was fetched, with the exact revision of a repository.
    files: as they came, before they were converted.
    """

    form: str
    source: str
    files: tuple[OriginalFile, ...]


class CannotFetch(Exception):
    """Nothing can be fetched from there. `status` is HTTP's: 413 too large, 422 the caller's fault, 502 the hub's."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies in `folder` now, and the exact place that it is from."""

    folder: Path
    source: str


def parse(text: str) -> HubSource | ObjectSource:
    """The source that a text names; raises CannotFetch with the forms that are accepted."""
    if found := _S3.fullmatch(text):
        return ObjectSource(found["bucket"], found["prefix"])
    if found := _HUB.fullmatch(text):
        try:
            path = str(inner_path(found["path"].removeprefix(":"))) if found["path"] else ""
        except BadPath as error:
            raise CannotFetch(f"{error}; expected {EXPECTED}") from error
        if ".." in (found["revision"] or ""):
            raise CannotFetch(f"revision {found['revision']!r} is invalid, expected a branch, tag or commit")
        return HubSource(found["repository"], found["revision"] or "", path)
    raise CannotFetch(f"{text[:200]!r} is not a source, expected {EXPECTED}")
