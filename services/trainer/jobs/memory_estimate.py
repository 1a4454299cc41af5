"""How much memory a training takes, before it is tried. Pure arithmetic; checked against measured runs.

The sum, in bytes, of

* the runtime: interpreter, torch, libraries, `_RUNTIME` a process;
* the base model, frozen: 4 a parameter, with qlora `_NF4` for those of the decoder's linear layers;
* the adapter: its parameters x 16, for weight, gradient and both moments of Adam (https://arxiv.org/abs/1412.6980);
  dora holds whole weight matrices of its target modules besides, `_DORA` times, while it normalises them;
* activations that the backward pass needs, for each token of a batch and each layer from the first adapted one, 4 a
  number:
  4 x hidden + 3 x intermediate + 2 x key/value for norms, attention and gate, one copy of what goes into each target
  module (2.5 with dropout, which keeps its mask and its own result) and the rank of each; `_HELD` times, since the
  backward pass makes gradients of them and the allocator does not give all back. With gradient checkpointing one layer
  at a time has them, beside the hidden state that goes into each; `_AGAIN` layers' worth was resident (two runs);
* vocabulary logits of at most `HEAD_ROWS` positions at once, `_LOGITS` copies: scores, log-probabilities, gradients.

Tokens are those of the worst batch, or of what is computed of it at once: records x longest sample, twice for dpo and
ranking, which compare completions (of a ranking with more than two there are more still).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.trainer.faults import Fault
from services.trainer.training.configuration import Configuration
from services.trainer.training.objectives.table import objective_named
from services.trainer.training.targets import layer_of

_RUNTIME = 600 * 2**20
_FLOAT = 4
_NF4 = 0.6
_ADAM = 4
_DORA = 3
_DROPOUT = 1.5
_HELD = 1.4
_AGAIN = 6
_LOGITS = 6
HEAD_ROWS = 1024
_SHORTEST = 8
"""Tokens below which no sample is of use: the least that max_length may be."""


@dataclass(frozen=True)
class ModelSize:
    """What decides a base model's memory. `linear` counts the parameters of the decoder's linear layers, `embedding`
    those of embedding and output head together; `key_value` is the width of all key heads."""

    layers: int
    hidden: int
    intermediate: int
    key_value: int
    vocabulary: int
    linear: int
    embedding: int
    shapes: Mapping[str, tuple[int, int]]
    """Linear modules of the decoder, full name → (out, in)."""

    @classmethod
    def of(cls, config: Mapping[str, object], shapes: Mapping[str, tuple[int, int]]) -> "ModelSize | None":
        """From config.json as transformers writes it and the linear modules; None where it has other names."""

        def number(name: str) -> int:
            value = config.get(name)
            return value if isinstance(value, int) else 0

        layers, hidden, heads = number("num_hidden_layers"), number("hidden_size"), number("num_attention_heads")
        if not (layers and hidden and heads and number("intermediate_size") and number("vocab_size")):
            return None
        decoder = {name: shape for name, shape in shapes.items() if name.rpartition(".")[2] != "lm_head"}
        width = number("head_dim") or hidden // heads
        matrices = 1 if config.get("tie_word_embeddings", True) else 2
        return cls(
            layers=layers,
            hidden=hidden,
            intermediate=number("intermediate_size"),
            key_value=(number("num_key_value_heads") or heads) * width,
            vocabulary=number("vocab_size"),
            linear=sum(rows * columns for rows, columns in decoder.values()),
            embedding=matrices * number("vocab_size") * hidden,
            shapes=decoder,
        )


def memory(configuration: Configuration, size: ModelSize, tokens: int) -> int:
    """Bytes at the highest of a training whose largest batch has so many tokens, over all its processes."""
    # What lies below the first adapted layer keeps nothing for a backward pass.
    lowest = size.layers - (configuration.layers or size.layers)
    adapted = [
        shape
        for name, shape in size.shapes.items()
        if (not configuration.target_modules or name.rpartition(".")[2] in configuration.target_modules)
        and (layer_of(name) or 0) >= lowest
    ]
    linear = size.linear * (_NF4 if configuration.method == "qlora" else _FLOAT)
    adapter = sum(configuration.rank * (rows + columns) for rows, columns in adapted) * _FLOAT * _ADAM
    whole = sum(rows * columns for rows, columns in adapted) * _FLOAT * _DORA if configuration.method == "dora" else 0
    copies = 1 + (_DROPOUT if configuration.dropout else 0)
    layers = size.layers - lowest
    numbers = layers * (4 * size.hidden + 3 * size.intermediate + 2 * size.key_value)
    numbers += round(sum(columns * copies + configuration.rank for _, columns in adapted))
    if configuration.gradient_checkpointing:
        numbers = layers * size.hidden + numbers * min(layers, _AGAIN) // layers
    own = _RUNTIME + size.embedding * _FLOAT + linear + adapter + whole
    rows_at_once = min(tokens, HEAD_ROWS * configuration.processes)
    logits = rows_at_once * size.vocabulary * _FLOAT * _LOGITS
    return round(own * configuration.processes + tokens * numbers * _FLOAT * _HELD + logits)


def faults(configuration: Configuration, size: ModelSize, available: int) -> tuple[Fault, ...]:
    """One fault when the worst batch does not fit in the available bytes; it names what would. 0 is no bound."""
    sequences = objective_named(configuration.objective).sequences
    batch, length, processes = configuration.batch_size, configuration.max_length, configuration.processes
    micro = configuration.micro_batch_size
    at_once = batch if micro is None else min(batch, micro * processes)
    needed = memory(configuration, size, at_once * length * sequences)
    if not available or needed <= available:
        return ()
    tokens = _fitting(configuration, size, available) // sequences
    shortage = f"it needs {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are available"
    field, value = ("batch_size", batch) if micro is None else ("micro_batch_size", micro)
    fitting, longest = tokens // length // processes, tokens // at_once
    if tokens < processes * _SHORTEST:
        expected = f"more memory: {shortage}, too little for this base model and method with any batch"
    else:
        ways = [f"micro_batch_size {fitting}"] if fitting else []
        ways += [f"max_length {longest}"] if longest >= _SHORTEST else []
        again = replace(configuration, gradient_checkpointing=True)
        if not configuration.gradient_checkpointing and memory(again, size, at_once * length * sequences) <= available:
            ways.append("the same with gradient_checkpointing")
        ways = ways or [f"micro_batch_size 1 with max_length {tokens // processes}"]
        expected = f"at most {' or '.join(ways)}: {shortage}"
    return (Fault(f"hyperparameters.{field}", value, expected),)


def _fitting(configuration: Configuration, size: ModelSize, available: int) -> int:
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high + 1) // 2
        if memory(configuration, size, middle) <= available:
            low = middle
        else:
            high = middle - 1
    return low
