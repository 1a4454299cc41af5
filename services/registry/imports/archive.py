"""Unpacks of a tar or zip what an adapter can have, within bounds. Runs in the inspection process."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO

from services.registry.checkpoint import CannotServe
from services.registry.imports.names import BadPath, inner_path, is_wanted, pickled

MAX_MEMBERS = 10_000
_CHUNK = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError)
"""NotImplementedError: a way of compressing that zipfile does not know."""
_ENCRYPTED = 0x1
"""Bit of a zip member's general purpose flags. Source: APPNOTE.TXT, 4.4.4."""


def unpack(archive: Path, to: Path, most: int) -> int:
    """Write the wanted members below `to`; returns their bytes. Links, devices and all other files are passed over.

    Raises CannotServe: no archive, a name that leads out of it, more than `most` bytes or `MAX_MEMBERS` members.
    """
    written, seen = 0, []
    try:
        with _members(archive) as members:
            for number, (name, content) in enumerate(members):
                if number >= MAX_MEMBERS:
                    raise _refused(archive, f"more than {MAX_MEMBERS} members")
                seen.append(name.rpartition("/")[2])
                if content is None or not is_wanted(seen[-1]):
                    continue
                target = to.joinpath(*inner_path(name).parts)
                if target.exists():
                    raise _refused(archive, f"{name[:200]!r} occurs twice")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    while chunk := content.read(_CHUNK):
                        written += len(chunk)
                        if written > most:
                            raise _refused(archive, f"its contents exceed {most} bytes")
                        file.write(chunk)
    except BadPath as error:
        raise _refused(archive, str(error)) from error
    except _BROKEN as error:
        raise _refused(archive, f"not a readable archive ({error})") from error
    if not written and (found := pickled(seen)):
        raise _refused(archive, f"{found[:200]} may hold pickled code, which is never read")
    return written


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes] | None]]]:
    """(name, content) of each member in their order; content is None for what is no file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield _of_zip(opened)
    else:
        # As a stream: an index of members that a file merely claims is never built.
        with tarfile.open(archive, "r|*") as opened:
            yield _of_tar(opened)


def _of_zip(opened: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for entry in opened.infolist():
        # The upper half of the attributes is the Unix mode; 0o120000 is a link.
        if entry.is_dir() or (entry.external_attr >> 16) & 0o170000 == 0o120000:
            yield entry.filename, None
            continue
        if entry.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile(f"{entry.filename[:200]!r} is encrypted")
        with opened.open(entry) as content:
            yield entry.filename, content


def _of_tar(opened: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for entry in opened:
        yield entry.name, opened.extractfile(entry) if entry.isreg() else None


def _refused(archive: Path, reason: str) -> CannotServe:
    return CannotServe("files", f"{archive.name[:200]}: {reason}")
