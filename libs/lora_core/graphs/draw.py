"""Drawing the next token of all rows at once, on the device that computed their logits."""

import torch

_STEP = -7046029254386353131  # the constants of SplitMix64 (Steele, Lea and Flood 2014) as signed numbers
_FIRST = -4658895280553007687
_SECOND = -7723592293110705685


def uniform(seeds: torch.Tensor, counters: torch.Tensor) -> torch.Tensor:
    """Float64 [rows], at least 0 and below 1: a function of a row's seed and counter (int64 [rows]) alone."""
    state = seeds + (counters + 1) * _STEP
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return _shifted(state ^ _shifted(state, 31), 11).double() * 2.0**-53


def _shifted(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    # The sign bit moves too, as in a shift of unsigned numbers.
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The greedy choice of each row, [rows]. logits: float32 [rows, vocabulary]."""
    return logits.argmax(-1)


def drawn(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_p: torch.Tensor,
    seeds: torch.Tensor,
    counters: torch.Tensor,
) -> torch.Tensor:
    """The next token of each row, [rows]: nucleus sampling, greedy where the temperature is 0.

    A token stays while the mass before it is below top_p, so that the likeliest always stays. The same seed and counter
    draw the same token from the same logits, independent of the other rows.

    logits: float32 [rows, vocabulary]. temperature, top_p: float32 [rows]. seeds, counters: int64 [rows].
    """
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    ordered, order = scaled.softmax(-1).double().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = (before < top_p.unsqueeze(1)) | (top_p >= 1).unsqueeze(1)
    mass = (ordered * kept).cumsum(-1)
    wanted = uniform(seeds, counters).unsqueeze(1) * mass[:, -1:]
    place = torch.minimum((mass <= wanted).sum(-1), kept.sum(-1) - 1)
    token = order.gather(1, place.unsqueeze(1)).squeeze(1)
    return torch.where(greedy, likeliest(logits), token)


def log_probabilities(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of each row's token under the model itself (temperature 1), [rows]; NaN where the logits are no numbers."""
    return logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(-1)
