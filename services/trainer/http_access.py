"""Who may call the trainer over HTTP, and how much one answer lists."""

from typing import Annotated

from fastapi import Depends, Query

from fleet_kit.auth import Caller, require

Trains = Annotated[Caller, Depends(require("train"))]
Limit = Annotated[int, Query(ge=1, le=1000)]
