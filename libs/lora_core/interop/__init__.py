"""Adapters from and to other tools' formats. Torch-free."""

from lora_core.interop.peft import from_peft, to_peft

__all__ = ["from_peft", "to_peft"]
