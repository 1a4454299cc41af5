"""How training data is prepared for each type of adapter: the table, as data.

The types are those of the quantisation profiles in lora_core/profiles.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

Values = Mapping[str, object]
"""Fields of a `DataRecipe` that its author may leave out."""

PRESETS: Mapping[str, Values] = MappingProxyType(
    {
        # A label for a sentence: short answers, every label prompted in several wordings, no phrase twice.
        "intent-classifier": {
            "kind": "completion",
            "sources": [{"kind": "live", "min_rating": 3}],
            "filters": {
                "length": {"max_prompt_characters": 2000, "max_completion_characters": 100},
                "personal": {"action": "mask"},
                "exact_duplicates": {"by": "prompt"},
            },
            "generators": {
                "generators": [
                    {
                        "kind": "paraphrase",
                        "name": "wordings",
                        "forms": ["Please: {prompt}", "{prompt} Thank you.", "I would like to know: {prompt}"],
                        "per_record": 1,
                    }
                ]
            },
            "validation_part": 0.1,
        },
        # Prose: what people rated highly, long enough to learn a style from, no near duplicates.
        "content-generator": {
            "kind": "completion",
            "sources": [{"kind": "live", "min_rating": 4}],
            "filters": {
                "length": {"min_completion_words": 5},
                "boilerplate": {},
                "personal": {"action": "mask"},
                "near_duplicates": {"threshold": 0.85},
            },
            "validation_part": 0.05,
        },
        # Structured output: an answer that is no JSON teaches the wrong thing, however well it is rated.
        "workflow-builder": {
            "kind": "completion",
            "sources": [{"kind": "live", "min_rating": 4}],
            "filters": {
                "patterns": [
                    {"name": "json", "pattern": r"^\s*[\[{](?s:.*)[\]}]\s*$", "action": "keep", "text": "completion"}
                ],
                "personal": {"action": "drop"},
            },
            "validation_part": 0.1,
        },
    }
)


def preset_of(adapter_type: str) -> Values:
    """The preset of a type of adapter; raises ValueError for one that has none."""
    if adapter_type not in PRESETS:
        raise ValueError(f"adapter_type: {adapter_type!r} has no preset, expected one of {', '.join(PRESETS)}")
    return PRESETS[adapter_type]
