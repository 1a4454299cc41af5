"""Pages from templates. Every text is escaped; a page brings no script or style but our own files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

from lorafleet.responses import Reply
from services.console.assets import ASSETS
from services.console.viewer import Viewer

__all__ = ["POLICY", "page", "part"]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DEAD_LETTERS: Final[str] = "Dead letters"
"""Its page is for those who administer a domain."""
SECTIONS: Final = (
    ("Fleet", "/console/"),
    ("Review", "/console/review"),
    ("Training", "/console/jobs"),
    ("Playground", "/console/playground"),
    ("Live", "/console/live"),
    (DEAD_LETTERS, "/console/dead-letters"),
    ("Health", "/console/health"),
    ("Past", "/console/at"),
)


def page(
    request: Request, template: str, viewer: Viewer | None, *, status: int = 200, **context: object
) -> HTMLResponse:
    """A whole page."""
    operator = viewer is not None and viewer.can("admin")
    sections = [one for one in SECTIONS if operator or one[0] != DEAD_LETTERS]
    return part(request, template, viewer, status=status, sections=sections, path=request.url.path, **context)


def part(
    request: Request, template: str, viewer: Viewer | None, *, status: int = 200, **context: object
) -> HTMLResponse:
    """A piece of a page, which replaces the one before."""
    text = _templates().get_template(template).render(viewer=viewer, query=request.query_params, **context)
    return HTMLResponse(text, status, headers={"Content-Security-Policy": POLICY})


def fragment(template: str, **context: object) -> str:
    """A piece of a page as text."""
    return _templates().get_template(template).render(**context)


class _Pages(Environment):
    """Strict about names, but a field that a service of another release does not answer is none."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        found = super().getattr(obj, attribute)
        return None if isinstance(found, Undefined) and isinstance(obj, Reply) else found


@cache
def _templates() -> Environment:
    environment = _Pages(
        loader=PackageLoader("services.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "number": number,
        "share": share,
        "segment": lambda text: quote(str(text), safe=""),
        "pretty": pretty,
    }
    environment.globals |= {"asset": lambda name: ASSETS[name].path, "changed": changed}
    return environment


def changed(query: Mapping[str, str], **values: object) -> str:
    """The query of the present page with these values in place of its own; empty ones are left out."""
    return urlencode({name: value for name, value in {**query, **values}.items() if value not in (None, "")})


def moment(value: object) -> str:
    """A time to the second, in UTC, as `2026-12-02 09:15:00`; empty for none."""
    if not value:
        return ""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def number(value: Any, digits: int = 1) -> str:
    """A number for people: thousands apart, at most so many digits behind the point; `–` for none."""
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def share(value: Any) -> str:
    """A fraction in per cent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
