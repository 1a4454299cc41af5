"""The device that a base model is placed on, and what it can compute with there."""

import re
from typing import TYPE_CHECKING, Literal

from lora_core.errors import DeviceUnavailable

if TYPE_CHECKING:
    import torch

PATTERN = r"^(auto|cpu|cuda(:\d+)?)$"
"""What can name a device: `auto` is the first GPU if there is one, else the processor."""

Weights = Literal["float32", "bfloat16", "float16", "int8"]
"""How a served model keeps its weights. bfloat16 and float16 are half of float32 and slow on processors without them;
int8, for processors, is `lora_core.int8`."""


def find_device(requested: str, weights: Weights = "float32") -> "torch.device":
    """The device by its name, see `PATTERN`. With int8 weights `auto` is the processor.

    Raises:
        DeviceUnavailable: no such name, no such GPU, or weights that it cannot compute with.
    """
    import torch

    if not re.fullmatch(PATTERN, requested):
        raise DeviceUnavailable(f"device is {requested!r}, expected auto, cpu, cuda or cuda:N")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested == "cpu" or (requested == "auto" and (not present or weights == "int8")):
        return torch.device("cpu")
    if weights == "int8":
        raise DeviceUnavailable(f"device is {requested!r} with int8 weights, which processors alone compute with")
    number = int(requested.partition(":")[2] or 0)
    if number >= present:
        raise DeviceUnavailable(f"device is {requested!r}, and torch {torch.__version__} finds {present} GPUs here")
    device = torch.device("cuda", number)
    if weights == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceUnavailable(f"weights are bfloat16, which {torch.cuda.get_device_name(device)} cannot compute with")
    return device


def prepare(device: "torch.device") -> None:
    """Settings of torch, for the whole process, under which models on this device are served fastest.

    In half precision torch prefers cuDNN's attention on recent GPUs, which plans every new shape at its first use.
    Prompts and caches have a new length at nearly every pass, so that planning costs more than all the rest of it
    (docs/gpu.md). On the processor nothing is set.
    """
    import torch

    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def free_memory(device: "torch.device") -> int | None:
    """Bytes that can still be allocated on a GPU; None on the processor, whose memory the service watches itself."""
    import torch

    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free
