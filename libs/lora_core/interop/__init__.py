"""Adapters from and to other tools' formats. Torch-free."""

from lora_core.interop.gguf import to_gguf
from lora_core.interop.gguf_reader import from_gguf
from lora_core.interop.mlx import from_mlx
from lora_core.interop.peft import from_peft, to_peft

__all__ = ["from_gguf", "from_mlx", "from_peft", "to_gguf", "to_peft"]
