"""Importing this imports what every training on this machine's processors needs, which takes seconds."""

import sys
from types import ModuleType
from typing import cast

# PEFT imports bitsandbytes wherever it finds it, and that imports torch's compiler: seconds for nothing but QLoRA.
sys.modules["bitsandbytes"] = cast("ModuleType", None)

import services.trainer.training.train  # noqa: E402, F401 - behind the guard
