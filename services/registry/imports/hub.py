"""Fetches an adapter's files from a Hugging Face repository, or from a mirror of the hub (`HF_ENDPOINT`).

Through `huggingface_hub`, which follows `HF_HUB_OFFLINE` too: then only what lies in the registry's own cache
(`HF_HUB_CACHE`) can be imported, which an operator has put there. The registry has no token of its own: a private
repository is read with the caller's. Source: https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from services.registry.imports.guard import GuardedTransport, Hosts, allowance
from services.registry.imports.names import EXPECTED, inner_path, is_archive, is_wanted, pickled
from services.registry.imports.source import CannotFetch, Fetched, HubSource

_METADATA_BYTES = 16 << 20
"""Of answers that are no files: lists of names."""
MAX_FILES = 64


class Hub:
    """A client of the hub behind the guard. Blocking: call it in a thread."""

    def __init__(self, hosts: Hosts, *, most: int, seconds: float) -> None:
        self._hosts = hosts
        self._most = most
        self._seconds = seconds
        self._lock = Lock()
        self._ready = False

    def fetch(self, source: HubSource, token: str | None, to: Path) -> Fetched:
        """The wanted files of the repository at one commit, in the folder `to`.

        Raises CannotFetch: no such repository, revision or file; a forbidden host; too many bytes; nothing
        that is an adapter; offline and not in the cache.
        """
        self._prepare()
        from huggingface_hub import constants, errors

        try:
            if constants.is_offline_mode():
                return _from_cache(source, to, self._most)
            with allowance(self._most + _METADATA_BYTES, self._seconds):
                return self._download(source, token, to)
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError) as error:
            what = f"{source.repository}{'@' + source.revision if source.revision else ''}"
            raise CannotFetch(
                f"the hub has no {what}, or it is private (then send hub_token): {_first_line(error)}"
            ) from error
        except errors.EntryNotFoundError as error:
            raise CannotFetch(f"{source.repository} lacks a file: {_first_line(error)}") from error
        except errors.HFValidationError as error:
            raise CannotFetch(f"{source.repository!r} is not a repository: {_first_line(error)}") from error
        except errors.HfHubHTTPError as error:
            raise CannotFetch(f"the hub returned an error: {_first_line(error)}", 502) from error
        except _transport_errors() as error:
            raise CannotFetch(f"the hub is unavailable: {type(error).__name__} {_first_line(error)}", 502) from error

    def _prepare(self) -> None:
        with self._lock:
            if self._ready:
                return
            # Xet brings a client of its own, which the guard would not see. Both are read when the package is imported.
            os.environ |= {
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }
            try:
                import huggingface_hub
            except ImportError as error:
                raise CannotFetch(
                    "imports from a hub need the package huggingface_hub: pip install 'lorafleet[registry]'"
                ) from error
            import httpx2

            hosts = self._hosts
            huggingface_hub.set_client_factory(
                lambda: httpx2.Client(transport=GuardedTransport(hosts), follow_redirects=True, timeout=None)
            )
            self._ready = True

    def _download(self, source: HubSource, token: str | None, to: Path) -> Fetched:
        from huggingface_hub import HfApi, hf_hub_download

        # False, not None: no token of this machine is ever sent.
        credential = token or False
        info: Any = HfApi(token=credential).model_info(
            source.repository, revision=source.revision or None, files_metadata=True, timeout=30
        )
        files = {one.rfilename: one for one in info.siblings or ()}
        names = _wanted(source, list(files))
        sizes = [files[name].size or 0 for name in names]
        if sum(sizes) > self._most:
            raise CannotFetch(f"{sum(sizes)} bytes are over the {self._most} that an import may have", 413)
        for name in names:
            # Links are made of what was fetched: a file in a scratch folder of its own, moved where it belongs.
            path = Path(
                hf_hub_download(
                    source.repository, name, revision=info.sha, local_dir=to.with_name("hub"), token=credential
                )
            )
            _check_digest(path, name, files[name].lfs)
            target = to.joinpath(*inner_path(name).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        return Fetched(to, f"hf://{source.repository}@{info.sha}{':' + source.path if source.path else ''}")


def _from_cache(source: HubSource, to: Path, most: int) -> Fetched:
    from huggingface_hub import errors, snapshot_download

    try:
        snapshot = Path(
            snapshot_download(source.repository, revision=source.revision or None, local_files_only=True, token=False)
        )
    except (errors.LocalEntryNotFoundError, FileNotFoundError) as error:
        raise CannotFetch(
            f"{source.repository} is not in the registry's cache, and the registry is offline (HF_HUB_OFFLINE): "
            "upload the files, or ask an operator"
        ) from error
    names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    wanted = _wanted(source, names)
    if (size := sum((snapshot / name).stat().st_size for name in wanted)) > most:
        raise CannotFetch(f"{size} bytes are over the {most} that an import may have", 413)
    for name in wanted:
        target = to.joinpath(*inner_path(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, target)
    return Fetched(to, f"hf://{source.repository}@{snapshot.name}{':' + source.path if source.path else ''}")


def _wanted(source: HubSource, names: list[str]) -> list[str]:
    """The files to fetch: the named one, or those right in the named folder; raises CannotFetch where none is."""
    if source.path in names:
        wanted = [source.path]
    else:
        wanted = [name for name in names if name.rpartition("/")[0] == source.path]
    chosen = [name for name in wanted if is_wanted(PurePosixPath(name).name) or is_archive(name)]
    if not chosen:
        place = f"{source.repository}:{source.path}" if source.path else source.repository
        if found := pickled(wanted):
            raise CannotFetch(f"{found} of {place} may hold pickled code, which is never read; expected {EXPECTED}")
        raise CannotFetch(f"{place} holds no adapter ({', '.join(sorted(names)[:20])}); expected {EXPECTED}")
    if len(chosen) > MAX_FILES:
        raise CannotFetch(f"{len(chosen)} files could be adapters; name one, or a folder: {source.repository}:PATH")
    return chosen


def _check_digest(path: Path, name: str, lfs: Any) -> None:
    """The hub's own digest of a large file, which its client does not compare."""
    wanted = getattr(lfs, "sha256", None)
    if wanted is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise CannotFetch(f"{name} has digest {found}, the hub lists {wanted}", 502)


def _transport_errors() -> tuple[type[Exception], ...]:
    import httpx2

    return (httpx2.HTTPError, OSError)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
