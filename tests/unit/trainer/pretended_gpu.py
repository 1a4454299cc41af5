"""A packed batch on a device that only pretends: shapes and devices are computed, numbers are not.

Run as a program, since a pretended device is there for the whole process. Any operation that mixes devices raises.
"""

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import LlamaConfig, LlamaForCausalLM

from services.trainer.training.objectives.ranking import listwise_loss, margin_loss, rrhf_loss
from services.trainer.training.packing.layout import Packing
from services.trainer.training.packing.model import hidden_states

ROWS = [list(range(20)), list(range(10)), [3, 4]]


def pretend(model: torch.nn.Module, mode: FakeTensorMode, device: torch.device) -> None:
    """Move a model of the meta device there."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    moved = FakeTensor(mode, value.detach().to("meta"), device)
                    held[name] = torch.nn.Parameter(moved) if isinstance(value, torch.nn.Parameter) else moved


def main() -> None:
    """Forward and backward there; then the same with a layout left on the CPU, which must be noticed."""
    _setup_privateuseone_for_python_backend("pretended")
    device, mode = torch.device("pretended:0"), FakeTensorMode()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=2, **sizes))
    pretend(model, mode, device)
    with mode:
        states = hidden_states(model, Packing(ROWS, device))
        assert states.device == device
        scores = states.sum(1)[:4]
        losses = margin_loss(scores, 0.1) + rrhf_loss(scores) + listwise_loss(scores)
        losses.backward()
        assert {each.grad.device for each in model.model.parameters() if each.grad is not None} == {device}
        try:
            hidden_states(model, Packing(ROWS))
        except Exception as mixed:
            assert "same device" in str(mixed)
        else:
            raise AssertionError("a layout on another device was not noticed")
    print("all there")


if __name__ == "__main__":
    main()
