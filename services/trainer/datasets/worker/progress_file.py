"""Where the building subprocess is in its work, on disk: its supervisor can name what it died of."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class BuildPosition(BaseModel):
    """A part of the recipe, and the file or step in it."""

    model_config = ConfigDict(frozen=True)

    field: str = "sources"
    name: str = ""


class BuildPositionFile:
    """The newest place, in a file of the build's work folder."""

    def __init__(self, work: Path) -> None:
        self._path = work / "place.json"

    def write(self, field: str, name: str) -> None:
        """The work has come to this place."""
        self._path.write_text(BuildPosition(field=field, name=name[:300]).model_dump_json())

    def read(self) -> BuildPosition:
        """The last place; that of no source where none was written."""
        try:
            return BuildPosition.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return BuildPosition()
