"""Weight arrays as torch tensors and back, sharing memory, bfloat16 included."""

import numpy as np
import torch

from lora_core.array import BFLOAT16, Array


def to_torch(array: Array) -> torch.Tensor:
    """The array as a tensor of the same dtype. Shares its memory where that can be written: treat it as read-only.

    A card's arrays are marked read-only for numpy, over a private map of the file that can be written. torch has no
    read-only tensors and warns about such arrays, so the mark is lifted on a view of our own.
    """
    view = array.view(np.int16) if array.dtype == BFLOAT16 else array.view()
    if not view.flags.writeable:
        try:
            view.setflags(write=True)
        except ValueError:  # read-only memory, such as a bytes object
            view = view.copy()
    tensor = torch.from_numpy(view)
    return tensor.view(torch.bfloat16) if array.dtype == BFLOAT16 else tensor


def from_torch(tensor: torch.Tensor) -> Array:
    """A contiguous CPU copy of a float32, float16 or bfloat16 tensor, bit for bit."""
    tensor = tensor.detach().to("cpu", copy=True).contiguous()
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy().view(BFLOAT16)
        return bits
    if tensor.dtype not in (torch.float32, torch.float16):
        raise TypeError(f"weights are {tensor.dtype}, expected float32, float16 or bfloat16")
    array: Array = tensor.numpy()
    return array
