"""Linear layers with 8-bit weights for processors: less memory to read for each token, answers nearly the same.

Each output's weights share one scale. The input is split into two terms, the second of which is what the first leaves
over: language models have a few large activations, and one 8-bit term for all of them costs far more than 8-bit weights
do. The input's largest columns are known from a sample text; their weights, whose rounding would count most, stay as
they are (cf. Dettmers et al. 2022, arXiv:2208.07339). Each token has a scale of its own and the products are sums of
integers: a row's output depends on its neighbours by no more than the rounding of a sum over those columns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lora_core.int8_kernels import Kernel, best_kernel
from lora_core.layers import SHARED_INPUT

_SMALLEST = 1e-30
_FEWEST = 16  # columns that stay float32; from 2,048 inputs on one of 128

SAMPLE = (
    "Dear all, the meeting of 12 March is moved to 3 pm; please bring the figures (4,500.00 EUR, 17 %).\n"
    "def area(r: float) -> float:\n    return 3.14159 * r ** 2\n"
    "Der Vertrag endet am 31.12.; la réunion est reportée. ¿Qué hora es? "
    "First, wash the rice. Then let it rest for ten minutes: why do you think that matters?"
)
"""A text of several kinds, from which the largest columns are known."""


class Int8Product:
    """Linear layers that read one input, as one product: 8-bit weights but for `columns`, [out, in] in all.

    weight: float32, [out, in]. columns: which inputs keep their weights.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, columns: torch.Tensor) -> None:
        self.out_features, self.in_features = weight.shape
        self._columns, self._bias = columns, bias
        self._exact = weight.index_select(1, columns).t().contiguous()
        self._others = torch.ones(self.in_features).index_fill_(0, columns, 0.0)
        rounded = weight * self._others
        self._kernel: Kernel = best_kernel(rounded, (rounded.abs().amax(1) / 127).clamp_min(_SMALLEST))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., in], float32. Returns [..., out]."""
        rows = x.reshape(-1, self.in_features)
        levels = self._kernel.levels
        others = rows * self._others
        largest = others.abs().amax(-1, keepdim=True).clamp_min_(_SMALLEST)
        terms = rows.new_empty((2, *rows.shape))
        high, low = terms[0], terms[1]
        scale = largest.mul_(1 / levels)
        torch.div(others, scale, out=low)
        torch.round(low, out=high)
        low.sub_(high).mul_(2 * levels)  # within half a level of zero, so that it fills the range again
        products = self._kernel.product(terms.view(-1, self.in_features)).view(2, len(rows), -1)
        output = products[0].add_(products[1], alpha=1 / (2 * levels)).mul_(scale)
        output.addmm_(rows.index_select(1, self._columns), self._exact)
        if self._bias is not None:
            output.add_(self._bias)
        return output.view(*x.shape[:-1], -1)


class Int8Linear(nn.Linear):
    """A linear layer of float32 inputs and outputs; `weight` is empty, its outputs are `span` of a shared product's.

    shared: the outputs of the product for the input that was read last, by layers that have not taken their part yet.
    """

    compute_dtype = torch.float32

    def __init__(self, layer: nn.Linear, product: Int8Product, span: slice, shared: "_Shared") -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.product, self._span, self._shared = product, span, shared
        self.weight = nn.Parameter(layer.weight.new_empty(0, dtype=torch.int8), requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input: [..., in], float32. Returns [..., out]."""
        return self._shared.of(self.product, input, self._span.start)[..., self._span]


class _Shared:
    """Each part of an output is taken once: adapters add to it in place."""

    def __init__(self, users: int) -> None:
        self._users = users
        self._input: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self._taken: set[int] = set()

    def of(self, product: Int8Product, x: torch.Tensor, part: int) -> torch.Tensor:
        output = self._output
        if output is None or self._input is not x or part in self._taken:
            self._input, output, self._taken = x, product(x), set()
            self._output = output
        self._taken.add(part)
        if len(self._taken) == self._users:
            self._input = self._output = None
        return output


def to_int8(model: nn.Module, sample: Sequence[int] = ()) -> int:
    """Replaces every plain linear layer of a float32 model on the CPU in place; returns how many.

    sample: tokens of a text that the model reads once, see `SAMPLE`; by default tokens from all over its vocabulary.

    Raises RuntimeError where this processor has no 8-bit matrix product.
    """
    layers = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    largest = _largest_inputs(model, layers, sample)
    for together in _shared_inputs(layers):
        first = layers[together[0]]
        seen = [largest[name] for name in together if name in largest]
        count = min(max(_FEWEST, first.in_features // 128), first.in_features // 4)
        columns = (seen[0] if seen else first.weight.detach().abs().amax(0)).topk(count).indices
        biases = [layers[name].bias for name in together]
        bias = None if biases[0] is None else torch.cat([one.detach().float() for one in biases])
        weight = torch.cat([layers[name].weight.detach().float() for name in together])
        product, shared, end = Int8Product(weight, bias, columns), _Shared(len(together)), 0
        for name in together:
            begin, end = end, end + layers[name].out_features
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, Int8Linear(layers[name], product, slice(begin, end), shared))
    return len(layers)


def _shared_inputs(layers: Mapping[str, nn.Linear]) -> Iterable[list[str]]:
    found: dict[tuple[object, ...], list[str]] = {}
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        family = next((family for family in SHARED_INPUT if leaf in family), (leaf,))
        found.setdefault((parent, family, layer.in_features, layer.bias is None), []).append(name)
    return found.values()


def _largest_inputs(
    model: nn.Module, layers: Mapping[str, nn.Linear], sample: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Of each layer that text reaches the largest absolute value of each input, [in]."""
    whole: Any = model
    tokens = int(whole.get_input_embeddings().num_embeddings)
    ids = torch.tensor([list(sample) or list(range(0, tokens, max(1, tokens // 64)))])
    found: dict[str, torch.Tensor] = {}

    def looking(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen = inputs[0].detach().float().abs().flatten(0, -2).amax(0)
            found[name] = seen if name not in found else torch.maximum(found[name], seen)

        return look

    hooks = [layer.register_forward_pre_hook(looking(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            whole(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found
