"""Records what the real models say of the calibration cases, for the pure tests of the judge.

    python tests/unit/evaluator/record_calibration.py BASE_MODEL_FOLDER EMBEDDING_MODEL_FOLDER [SET ...]

writes calibration_signals.json and held_out_signals.json beside it (the judge's constants were chosen on the
calibration cases; the held-out ones were written afterwards and only looked at): the base model's own (greedy, therefore fluent and wrong) answer to each
prompt, and for every text the sentence embeddings' cosines and the base model's mean token log-likelihoods.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.evaluator.judging.signals import likelihood_text, measure, texts_to_embed

HERE = Path(__file__).parent
GIBBERISH = [
    "florp gnarble zxcv qwop blint 77 trazz uumble kep snorf wibbit lurgan dosh",
    "the of to and in a is that for it as was with be by on not he i this are or",
    "asdkjh askjdh kajshd kjahsd kjh asd kjhasd kjhaskjdh aksjdh kajshd",
]


def main(base: str, embedder: str, sets: Sequence[str]) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    encoder = SentenceTransformer(embedder, device="cpu")

    def generate(prompt: str) -> str:
        chat = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=96, do_sample=False)
        return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    def likelihood(prompt: str, text: str) -> float | None:
        whole, start = likelihood_text(prompt, text)
        enc = tokenizer(whole, return_tensors="pt", return_offsets_mapping=True)
        with torch.no_grad():
            logits = model(enc["input_ids"]).logits[0].log_softmax(-1)
        values = [
            logits[i - 1, token].item()
            for i, (token, (at, _)) in enumerate(
                zip(enc["input_ids"][0].tolist(), enc["offset_mapping"][0].tolist(), strict=True)
            )
            if i > 0 and at >= start
        ]
        return sum(values) / len(values) if values else None

    for name in sets:
        record(name, generate, likelihood, encoder)


def record(
    name: str,
    generate: Callable[[str], str],
    likelihood: Callable[[str, str], float | None],
    encoder: SentenceTransformer,
) -> None:
    recorded = []
    for case in json.loads((HERE / f"{name}_cases.json").read_text()):
        prompt, expected = case["prompt"], case["expected"]
        texts = [
            ("expected", expected),
            *[("paraphrase", t) for t in case["paraphrase"]],
            *[("wrong", t) for t in case["wrong"]],
            ("base", generate(prompt)),
            *[("gibberish", t) for t in GIBBERISH],
            ("loop", (expected.split(".")[0] + ". ") * 6),
            ("echo", prompt),
        ]
        expected_likelihood = likelihood(prompt, expected)
        answers = []
        for kind, answer in texts:
            vectors = encoder.encode(texts_to_embed(prompt, expected, answer), normalize_embeddings=True)
            signals = measure(
                prompt,
                expected,
                answer,
                vectors.tolist(),
                answer_likelihood=likelihood(prompt, answer),
                expected_likelihood=expected_likelihood,
            )
            answers.append({"kind": kind, "answer": answer, "signals": signals.to_json()})
        recorded.append({"prompt": prompt, "answers": answers})
        print(prompt, flush=True)
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    (HERE / f"{name}_signals.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["calibration", "held_out"])
