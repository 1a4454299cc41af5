"""The report as one HTML page for people: no script, nothing fetched, for light, dark, paper and screen readers."""

import html
import re
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from services.trainer.reports import curves
from services.trainer.reports.document import TrainingReport

if TYPE_CHECKING:
    from jinja2 import Environment

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~:])")


def render(report: TrainingReport) -> str:
    """The page. Everything that came from people or data is escaped."""
    template = templates().get_template("page.html.j2")
    return template.render(report=report, charts=curves.charts(report), curves=curves)


@cache
def templates() -> "Environment":
    """This folder's templates, with the filters they share; HTML ones escape by themselves."""
    # Imported here: a trainer that has nothing to report does without its ten megabytes.
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("services.trainer.reports"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": in_bytes, "duration": duration, "number": number, "moment": moment}
    environment.filters |= {"escaped": in_markdown}
    return environment


def in_markdown(text: object) -> str:
    """Text on one line of a Markdown document, with nothing in it that Markdown or HTML takes for its own."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return _MARKDOWN.sub(r"\\\1", plain)


def in_bytes(size: float) -> str:
    """`1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes every size")


def duration(seconds: float) -> str:
    """`1:02:03`, or `4.2 s` below a minute."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def number(value: float | None) -> str:
    """Four significant digits, whole numbers with thousands apart; a dash for none."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def moment(at: datetime | None) -> str:
    """`2026-01-31 12:00:00 UTC`."""
    return at.strftime("%Y-%m-%d %H:%M:%S %Z") if at else "–"
