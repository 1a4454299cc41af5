"""Takes an adapter from the object store into a slot, and proves its effect before anything is served with it."""

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    pass

log = structlog.get_logger()
