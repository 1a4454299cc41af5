"""The recipe of a data set, from a file and from the options of `lorafleet data build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet_cli.files import read_object
from lorafleet.errors import BadInput


@dataclass(frozen=True)
class SourceOptions:
    """The sources that the options name. `uploads` are ids of files that are uploaded already."""

    uploads: Sequence[str] = ()
    query: str = ""
    document_store: str = ""
    database: str = ""
    sql: str = ""
    prefix: str = ""
    folder: str = ""
    live: bool = False
    min_rating: float | None = None
    columns: Sequence[str] = ()
    rating_best: float | None = None
    unusable: str = ""

    def sources(self) -> list[dict[str, object]]:
        """The sources in the form of a recipe; raises `BadInput` for options that do not go together."""
        if bool(self.database) != bool(self.sql):
            raise BadInput("--sql", "goes with --database: the database's name and the SELECT")
        if self.document_store and not self.query:
            raise BadInput("--query", "is missing: --document-store needs the words to look for")
        found: list[dict[str, object]] = [{"kind": "upload", "upload_id": one} for one in self.uploads]
        if self.document_store:
            found.append({"kind": "documents", "store": self.document_store, "query": self.query})
        if self.database:
            found.append({"kind": "sql", "database": self.database, "query": self.sql})
        if self.prefix:
            found.append({"kind": "s3", "prefix": self.prefix})
        if self.folder:
            found.append({"kind": "folder", "path": self.folder})
        if read := self._reading():
            found = [{**one, **read} for one in found]
        if self.live or self.min_rating is not None or (self.query and not self.document_store):
            found.append({"kind": "live", "query": self.query, "min_rating": self.min_rating})
        return found

    def _reading(self) -> dict[str, object]:
        """How the rows of every source but the live samples are read."""
        columns: dict[str, object] = {}
        for one in self.columns:
            field, equals, column = one.partition("=")
            if not equals or not field or not column:
                raise BadInput("--column", f"expected FIELD=COLUMN, for example prompt=title, not {one!r}")
            columns[field] = column
        if self.rating_best is not None:
            columns["rating_best"] = self.rating_best
        return {**({"columns": columns} if columns else {}), **({"unusable": self.unusable} if self.unusable else {})}


def read_recipe(name: str) -> dict[str, object]:
    """The recipe in a JSON or YAML file; raises `BadInput`."""
    return read_object(name, "--recipe", "as POST /v1/datasets takes it")


def merged(recipe: Mapping[str, object], options: Mapping[str, object], sources: SourceOptions) -> dict[str, object]:
    """The recipe with the options; options win, and their sources follow the recipe's."""
    given = recipe.get("sources") or []
    if not isinstance(given, list):
        raise BadInput("--recipe", f"sources is {given!r}; it must be a list")
    both = [*given, *sources.sources()]
    chosen = {name: value for name, value in options.items() if value not in (None, "")}
    made = {**recipe, **chosen, **({"sources": both} if both else {})}
    if not both and not made.get("adapter_type"):
        raise BadInput("FILE", "no source: give files, --query, --live, --database, --s3, --folder or --adapter-type")
    return made
