"""Vectors of texts by a causal language model."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from lora_core.padded_batch import left_padded


def sentence_vectors(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """[prompts, hidden]: the mean of each prompt's last hidden states, of length 1. prompts: token ids, none empty."""
    ids, mask = left_padded(prompts, model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model.base_model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state.float()
    weights = mask.unsqueeze(2)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    vectors: npt.NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return vectors
