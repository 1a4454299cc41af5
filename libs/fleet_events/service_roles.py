"""What each service publishes, consumes and follows: README's table, and a paragraph in its package's docstring."""

import re
from collections.abc import Iterator
from textwrap import wrap

from fleet_events.topology import SERVICES, TOPOLOGY, consumers_of

__all__ = ["in_docstring", "in_readme"]

OWNS = {
    "registry": "families, versions, approval, activation, provenance, audit, API keys",
    "trainer": "samples, data sets, jobs, checkpoints, reports",
    "evaluator": "golden data sets, evaluations, human labels",
    "router": "the routing index",
    "inference": "nothing durable: cache and slots",
    "console": "nothing: pages of what the others know",
}
BEGIN, END = "<!-- services: made by `make generate` -->", "<!-- end of services -->"
_PARAGRAPH = re.compile(r'^(?:Publishes|Consumes|Follows) .*?(?=\n\n|\n?"""|\Z)', re.MULTILINE | re.DOTALL)
WIDTH = 120


def roles(service: str) -> dict[str, list[str]]:
    """Names of the events that a service publishes, consumes durably and follows, each in the topology's order."""
    return {
        "publishes": [row.event.__name__ for row in TOPOLOGY if service in row.published_by],
        "consumes": [row.event.__name__ for row, _ in consumers_of(service)],
        "follows": [row.event.__name__ for row in TOPOLOGY if service in row.followed_by],
    }


def in_readme(text: str) -> str:
    """README with the table of today; raises `ValueError` if it has no place for one."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md: the table of services must stand once between {BEGIN} and {END}")
    before, _, rest = text.partition(BEGIN)
    return "\n".join([f"{before}{BEGIN}", *_table(), f"{END}{rest.partition(END)[2]}"])


def _table() -> Iterator[str]:
    yield "| service | owns | publishes | consumes | follows from the start |"
    yield "|---|---|---|---|---|"
    for service in SERVICES:
        events = (", ".join(names) or "—" for names in roles(service).values())
        yield f"| {' | '.join([service, OWNS[service], *events])} |"


def in_docstring(text: str, service: str) -> str:
    """The source of a service's package with the paragraph of today.

    Raises:
        ValueError: its docstring has no such paragraph, or more than one.
    """
    sentences = [f"{verb.capitalize()} {', '.join(names)}." for verb, names in roles(service).items() if names]
    paragraph = "\n".join(line for sentence in sentences for line in wrap(sentence, WIDTH))
    changed, count = _PARAGRAPH.subn(paragraph, text)
    if count != 1:
        raise ValueError(
            f"services/{service}/__init__.py: its docstring needs one paragraph of this form:\n{paragraph}"
        )
    return changed
