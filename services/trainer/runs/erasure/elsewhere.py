"""What recipes read from elsewhere: it stays, as its owners have it, and nothing is built of a forgotten person."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleet_kit.blobs import Blobs
from fleet_kit.db import Connection
from services.trainer.datasets.sources.documents import Documents
from services.trainer.datasets.sources.folder import HuggingFaceFolder
from services.trainer.datasets.sources.source import Source
from services.trainer.datasets.sources.sql import SqlQuery
from services.trainer.datasets.sources.upload import S3Prefix, prefix_of
from services.trainer.runs.erasure import elsewhere_store as store


@dataclass(frozen=True)
class KeptElsewhere:
    """A place whose rows stay as they are, and the data sets that recipes build of it."""

    where: str
    domain: str
    datasets: tuple[str, ...]


async def kept_elsewhere(connection: Connection, domain: str, blobs: Blobs) -> list[KeptElsewhere]:
    """The places of a domain ("*": of all), each once."""
    found: dict[tuple[str, str], set[str]] = {}
    for recipe in await store.recipes_with_own_sources(connection, domain):
        for source in recipe.sources:
            if where := place_of(source, recipe.domain, blobs):
                found.setdefault((recipe.domain, where), set()).add(recipe.name)
    return [KeptElsewhere(where, named, tuple(sorted(names))) for (named, where), names in sorted(found.items())]


def place_of(source: Source, domain: str, blobs: Blobs) -> str:
    """Where a source's rows lie; empty for what an erasure rewrites or deletes."""
    match source:
        case S3Prefix():
            return blobs.uri(prefix_of(domain) + source.prefix)
        case SqlQuery():
            return f"database {source.database}"
        case Documents():
            return f"document store {source.store}"
        case HuggingFaceFolder():
            return f"folder {domain}/{source.path}"
        case _:
            return ""


def described(kept: Sequence[KeptElsewhere]) -> list[str]:
    """A sentence for each place."""
    return [
        f"kept in {'your bucket: ' if one.where.startswith('s3://') else ''}{one.where}, filtered from builds"
        for one in kept
    ]
