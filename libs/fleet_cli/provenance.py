"""The digest chain of a version as readable lines, in the order in which each link was made."""

from __future__ import annotations

from collections.abc import Mapping

# What the registry calls a link, and what a reader calls it; other links follow under their own names.
ORDER = (
    ("dataset", "data set"),
    ("configuration", "configuration"),
    ("base_model", "base model"),
    ("checkpoint", "checkpoint"),
    ("artifact", "artifact"),
    ("evaluation", "evaluation"),
    ("approval", "approval"),
    ("loaded", "loaded"),
)


def lines(chain: Mapping[str, object]) -> list[str]:
    """One link a line; links that do not exist yet say so."""
    names = dict(ORDER)
    shown = [f"{chain.get('adapter_id', '')}"] if chain.get("adapter_id") else []
    wide = max(len(name) for name in names.values()) + 2
    for key in (*names, *(key for key in chain if key not in names and key != "adapter_id")):
        if key not in chain:
            continue
        text = _brief(chain[key]) or "not yet"
        shown.append(f"  → {names.get(key, key.replace('_', ' ')):<{wide}}{text}")
    return shown


def _brief(link: object) -> str:
    if isinstance(link, Mapping):
        return "  ".join(f"{name} {_brief(value)}" for name, value in link.items() if value not in (None, "", [], {}))
    if isinstance(link, list):
        return "; ".join(_brief(item) for item in link)
    if isinstance(link, float):
        return f"{link:g}"
    return "" if link is None else str(link)
