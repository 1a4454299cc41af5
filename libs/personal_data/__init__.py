"""Personal data that has a form, found and masked in text. A leaf: imports nothing of the fleet.

The trainer's filters of data sets use it, and inference before an answer leaves its process to become data.
"""

from personal_data.masking import CANDIDATE, PersonalKind, masked

__all__ = ["CANDIDATE", "PersonalKind", "masked"]
