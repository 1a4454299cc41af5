"""What is wrong with a recipe, or with the data it names."""

from pydantic import BaseModel, ConfigDict


class BuildFault(BaseModel):
    """One thing that is wrong with a recipe or with the data it names."""

    model_config = ConfigDict(frozen=True)

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is refused, expected {self.expected}"


class CannotBuild(Exception):
    """No data set comes of this; trying again changes nothing."""

    def __init__(self, *faults: BuildFault) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults
