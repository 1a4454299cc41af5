"""`LoRAFormat`: an adapter as one Arrow IPC file. Specified in docs/arrow-format.md.

One record batch of one row; each column is a canonical `arrow.fixed_shape_tensor` that stacks one projection's A (or
B) over the layers which share its shape: 14 columns in place of 420 matrices. Nothing is copied at load.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_core.card import LoRACard
from lora_core.errors import AdapterNotFound, CorruptAdapter, InvalidAdapter
from lora_core.format.arrow_ipc import Malformed
from lora_core.format.arrow_layout import FORMAT_VERSION
from lora_core.format.arrow_reader import Identity, prefault, read_card, read_max_rank
from lora_core.format.arrow_writer import Storage, serialise
from lora_core.format.stored_card import DocumentInvalid

__all__ = ["FORMAT_VERSION", "LoRAFormat", "Storage"]


class LoRAFormat:
    """Saving and loading of adapter files."""

    @staticmethod
    def save(card: LoRACard, path: Path | str, storage: Storage = "plain") -> str:
        """Write `card` to `path` (replaced atomically) and return its content digest (sha256, hex).

        The digest covers every tensor and all metadata. The same card gives the same digest on every machine.
        storage: `int8` or `int4` keep the matrices block-quantised (see `lora_core.quantisation`), with loss.
        """
        path = Path(path)
        data, digest = serialise(card, storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return digest

    @staticmethod
    def load(path: Path | str) -> LoRACard:
        """Map the file and return its card; its arrays are read-only views of the map (quantised ones are copies).

        Every load compares the checksum of all bytes. The digest itself, sha256 of every tensor, is computed when this
        process meets a file (inode, size and change times) for the first time.
        The file must not be changed in place while the card lives (replace it instead, as `save` does).
        Raises AdapterNotFound if it is missing, CorruptAdapter if it is truncated, altered, foreign or hostile.
        """
        mapped, identity = _mapped(Path(path))
        prefault(mapped)
        with _named(Path(path)):
            return read_card(memoryview(mapped), identity)

    @staticmethod
    def max_rank(path: Path | str) -> int:
        """The largest rank of any module, from the file's framing alone: its tensors are not read. Raises as `load`."""
        mapped, identity = _mapped(Path(path))
        with _named(Path(path)):
            return read_max_rank(memoryview(mapped), identity)


def _mapped(path: Path) -> tuple[mmap.mmap, Identity]:
    if not path.is_file():
        raise AdapterNotFound(f"no adapter file at {path}")
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            raise CorruptAdapter(path, "empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return mapped, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (Malformed, DocumentInvalid, InvalidAdapter) as error:
        raise CorruptAdapter(path, str(error)) from None
