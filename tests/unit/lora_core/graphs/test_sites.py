"""Which adapters a graph can serve."""

import numpy as np
import pytest

from lora_core import ArrowEngine, LoRACard, LoRAWeights
from lora_core.graphs.decoder import Draw, GraphDecoder


@pytest.fixture
def engine(tiny_llama, tiny_tokenizer) -> ArrowEngine:
    return ArrowEngine(tiny_llama, tiny_tokenizer, slots=4, max_rank=8)


def test_dora_and_adapters_of_the_embedding_are_refused_by_slot(engine, make_card) -> None:
    random = np.random.default_rng(0)
    own = {
        "a": random.standard_normal((2, 32), dtype=np.float32),
        "b": random.standard_normal((32, 2), dtype=np.float32),
    }
    name = "model.layers.0.self_attn.q_proj"
    dora = LoRACard("dora", 2, 4.0, ("q_proj",), {name: LoRAWeights(**own, magnitude=np.ones(32, np.float32))})
    lookup = {"a": random.standard_normal((2, 96), dtype=np.float32), "b": own["b"]}
    embedding = LoRACard("embedding", 2, 4.0, ("embed_tokens",), {"model.embed_tokens": LoRAWeights(**lookup)})
    slots = [engine.load(card).slot for card in (make_card("plain"), dora, embedding)]
    decoder = GraphDecoder(engine.model, engine._bank, 2, 32)
    assert [decoder.serves(slot) for slot in slots] == [True, False, False]
    with pytest.raises(ValueError, match="parts that no graph serves"):
        decoder.join([[5]], [slots[1]], [Draw()])
