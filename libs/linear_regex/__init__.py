"""Regular expressions that a caller sends, matched in time linear in the text. A leaf: imports nothing of the fleet.

The engine is Rust's `regex` crate, reached through pydantic-core, which the fleet depends on anyway
(docs/decisions/0008-linear-regular-expressions.md).
"""

from linear_regex.pattern import MAX_CHARACTERS, MAX_STEPS, Pattern, compile_pattern
from linear_regex.size import written_out
from linear_regex.translation import UnsuitablePattern

__all__ = ["MAX_CHARACTERS", "MAX_STEPS", "Pattern", "UnsuitablePattern", "compile_pattern", "written_out"]
