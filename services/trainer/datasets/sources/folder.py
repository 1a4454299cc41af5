"""Folders that Hugging Face `datasets` wrote, below a root that the trainer's settings name."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from services.trainer.datasets.sources.source import Access, Gathered, Source
from services.trainer.datasets.worker.spec import InputFile


class HuggingFaceFolder(Source):
    """A folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`, relative to the domain's own folder.

    That is `<LORAFLEET_DATASET_FOLDERS>/<domain>/`. All parts of a `DatasetDict` are read; the split is made again.
    """

    kind: Literal["folder"] = "folder"
    path: Annotated[str, Field(min_length=1, max_length=500)]

    origin: ClassVar[str] = "folder"

    def originates(self) -> str:
        return f"folder:{self.path}"

    def check(self, access: Access) -> None:
        self._folder(access)

    async def gather(self, to: Path, access: Access) -> Gathered:  # noqa: ARG002 - it is read where it lies
        return Gathered((InputFile(path=self._folder(access), format="folder", name=self.path),))

    def _folder(self, access: Access) -> Path:
        root = access.service.settings.dataset_folders
        if root is None:
            raise access.fault("path", self.path, "no folder source: LORAFLEET_DATASET_FOLDERS is not set")
        own = (root / access.domain).resolve()
        # Resolved, so that neither `..` nor a link leads out.
        folder = (own / self.path).resolve()
        if not folder.is_relative_to(own) or folder == own:
            raise access.fault("path", self.path, f"a folder below <LORAFLEET_DATASET_FOLDERS>/{access.domain}/")
        if not any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
            raise access.fault("path", self.path, "a folder that datasets' save_to_disk wrote")
        return folder
