"""What trainings teach on real data: intents of one domain of clinc150 (https://github.com/clinc/oos-eval, CC BY 3.0).

The folder is named by LORAFLEET_CLINC150 and holds data_full.json and domains.json. Each training runs as the trainer
service runs it: its own process, from a data set file to the finished artifact.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.clinc import DOMAIN, Clinc, Examples
from benchmarks.report import Row
from fleet_events.v1 import Method, Objective
from lora_core import ArrowEngine, LoRACard, LoRAFormat
from lora_core.engine import Request
from services.trainer.datasets import records
from services.trainer.datasets.records import Kind, Record, Split, prompt_messages
from services.trainer.runs.supervisor import supervise
from services.trainer.training.configuration import Configuration
from services.trainer.training.encoding import Tokenizer, prompt_ids
from services.trainer.training.protocol import Finished, Saved, Stepped, TrainingSpec, Validated

VARIANTS = (Method.RSLORA, Method.DORA, Method.QLORA)
ANSWER_TOKENS = 12
AT_ONCE = 64


@dataclass(frozen=True)
class Trained:
    """A finished training. `seconds` is the whole process, `steps_seconds` its steps alone."""

    card: LoRACard
    finished: Finished
    peft: Path
    steps: tuple[Stepped, ...]
    validated: tuple[Validated, ...]
    seconds: float

    @property
    def steps_seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def tokens_per_second(self) -> float:
        return sum(step.tokens for step in self.steps) / self.steps_seconds


def train(
    model: Path, work: Path, data: Sequence[Record], configuration: Configuration, *, continue_from: Path | None = None
) -> Trained:
    """One training in a process of its own, below `work`."""
    work.mkdir(parents=True)
    rows = pa.Table.from_pylist([record.values() for record in data], schema=records.schema())
    pq.write_table(rows, work / "data.parquet")
    spec = TrainingSpec(
        job_id=work.name,
        dataset=work / "data.parquet",
        base_model=model.resolve(),
        base_model_name=model.name,
        configuration=configuration,
        work=work,
        resume_from=None,
        continue_from=continue_from,
        threads=len(os.sched_getaffinity(0)),
        probe_prompt="What can you help me with?",
        supervisor=os.getpid(),
    )
    began = time.monotonic()
    messages = asyncio.run(_messages(spec))
    seconds = time.monotonic() - began
    finished = next((message for message in messages if isinstance(message, Finished)), None)
    if finished is None:
        raise RuntimeError(f"{work.name} did not finish: {messages[-1]}")
    return Trained(
        card=LoRAFormat.load(finished.artifact),
        finished=finished,
        peft=finished.weights.parent,
        steps=tuple(message for message in messages if isinstance(message, Stepped)),
        validated=tuple(message for message in messages if isinstance(message, Validated)),
        seconds=seconds,
    )


async def _messages(spec: TrainingSpec) -> list[Any]:
    received: list[Any] = []
    async with aclosing(supervise(spec)) as messages:
        async for message in messages:
            received.append(message)
            if isinstance(message, Saved):
                for file in message.folder.iterdir():
                    file.unlink()
    return received


def classify(examples: Examples, split: Split = "train") -> list[Record]:
    """Utterance → its intent."""
    return [Record(Kind.COMPLETION, prompt_messages(text), (intent,), split=split) for text, intent in examples]


def prefer(clinc: Clinc, examples: Examples, split: Split, seed: int) -> list[Record]:
    """The right intent is preferred to another of the domain."""
    draw = random.Random(seed)
    return [
        Record(
            Kind.PREFERENCE,
            prompt_messages(text),
            (intent, draw.choice([other for other in clinc.intents if other != intent])),
            split=split,
        )
        for text, intent in examples
    ]


def rank(clinc: Clinc, examples: Examples, split: Split, seed: int) -> list[Record]:
    """The right intent before another of the domain, that before one of another domain."""
    draw = random.Random(seed)
    return [
        Record(
            Kind.RANKING,
            prompt_messages(text),
            (intent, draw.choice([other for other in clinc.intents if other != intent]), draw.choice(clinc.elsewhere)),
            split=split,
        )
        for text, intent in examples
    ]


def exact_match(engine: ArrowEngine, examples: Examples, adapter: str | None) -> float:
    """Share of utterances that are answered by exactly their intent, greedily."""
    right = 0
    for start in range(0, len(examples), AT_ONCE):
        some = examples[start : start + AT_ONCE]
        requests = [
            Request(prompt_ids(cast("Tokenizer", engine.tokenizer), text), adapter, max_tokens=ANSWER_TOKENS)
            for text, _ in some
        ]
        answers: list[list[int]] = [[] for _ in some]
        batch = engine.start(requests)
        try:
            for row, token, _ in batch:
                answers[row].append(token)
        finally:
            batch.close()
        texts = [str(engine.tokenizer.decode(answer, skip_special_tokens=True)).strip() for answer in answers]
        right += sum(text == intent for text, (_, intent) in zip(texts, some, strict=True))
    return right / len(examples)


def proofs(model: Path, folder: Path, *, quick: bool) -> Iterator[list[Row]]:
    """All rows, part by part. Quick ones are a few steps each, to see that everything runs."""
    clinc = Clinc.read(folder)
    with TemporaryDirectory() as work:
        bench = _Bench(model, Path(work), clinc, quick)
        for part in (bench.classifier, bench.preference, bench.ranking, bench.methods):
            yield part()


class _Bench:
    def __init__(self, model: Path, work: Path, clinc: Clinc, quick: bool) -> None:
        self.model, self.work, self.clinc, self.quick = model, work, clinc, quick

    def _train(self, name: str, data: Sequence[Record], configuration: Configuration, **more: Any) -> Trained:
        short = replace(configuration, max_steps=2) if self.quick else configuration
        return train(self.model, self.work / name, data, short, **more)

    def classifier(self) -> list[Row]:
        """15 intents, measured on the 450 utterances of the test split: once in 6 minutes, once in 3."""
        test = self.clinc.test[:8] if self.quick else self.clinc.test
        engine = ArrowEngine.open(self.model, slots=1, max_rank=16)
        base = exact_match(engine, test, None)
        rows: list[Row] = []
        whole = Configuration(learning_rate=1e-3, epochs=1.2, batch_size=16, max_length=128)
        upper = replace(whole, learning_rate=1.5e-3, epochs=0.76, layers=20)
        for minutes, configuration in ((6, whole), (3, upper)):
            made = self._train(f"classifier-{minutes}", classify(self.clinc.train), configuration)
            engine.load(made.card, f"classifier-{minutes}")
            score = exact_match(engine, test, f"classifier-{minutes}")
            engine.unload(f"classifier-{minutes}")
            rows += _classified(minutes, configuration, made, score, base, len(test), len(self.clinc.train))
        return rows

    def preference(self) -> list[Row]:
        """DPO from the base model: does it prefer right intents for utterances it has not seen?"""
        seen, unseen = self.clinc.train[::5], self.clinc.validation[::3]
        data = [*prefer(self.clinc, seen, "train", 0), *prefer(self.clinc, unseen, "validation", 1)]
        configuration = Configuration(
            objective=Objective.DPO, learning_rate=5e-4, max_steps=38, batch_size=8, validation_steps=38, max_length=128
        )
        before = self._before(data, configuration)
        made = self._train("dpo", data, configuration)
        after = made.finished.metrics
        return [
            _held_out(
                "DPO from the base model: held-out pairs whose right answer is the likelier per token",
                before["preference_accuracy"],
                after["preference_accuracy"],
                f"{len(unseen)} pairs; reward accuracy {100 * after['reward_accuracy']:.1f} %; {made.seconds:.0f} s",
            )
        ]

    def ranking(self) -> list[Row]:
        """Margin ranking from the base model: is the order of unseen lists learned?"""
        seen, unseen = self.clinc.train[::5], self.clinc.validation[::4]
        data = [*rank(self.clinc, seen, "train", 0), *rank(self.clinc, unseen, "validation", 1)]
        configuration = Configuration(
            objective=Objective.RANKING,
            learning_rate=5e-4,
            max_steps=38,
            batch_size=8,
            validation_steps=38,
            max_length=128,
        )
        before = self._before(data, configuration)
        made = self._train("ranking", data, configuration)
        after = made.finished.metrics
        return [
            _held_out(
                "margin ranking from the base model: pairs of held-out lists in the right order",
                before["pairwise_accuracy"],
                after["pairwise_accuracy"],
                f"{len(unseen)} lists of 3; Kendall tau {before['kendall_tau']:.2f} → {after['kendall_tau']:.2f}; "
                f"{made.seconds:.0f} s",
            )
        ]

    def _before(self, data: Sequence[Record], configuration: Configuration) -> dict[str, float]:
        """The held-out measures of an adapter that has learned nothing: one step at a rate that moves nothing."""
        still = replace(configuration, learning_rate=1e-7, max_steps=1, validation_steps=1)
        return train(self.model, self.work / f"{configuration.objective}-before", data, still).finished.metrics

    def methods(self) -> list[Row]:
        """Every method on the same records and steps; LoRA with several seeds gives the noise."""
        data = [*classify(self.clinc.train[::5]), *classify(self.clinc.validation[::4], "validation")]
        plain = Configuration(learning_rate=5e-4, max_steps=24, batch_size=8, validation_steps=24, max_length=128)
        losses, seconds = dict[str, float](), dict[str, float]()
        seeds = [0] if self.quick else [0, 1, 2]
        for seed in seeds:
            made = self._train(f"lora-{seed}", data, replace(plain, seed=seed))
            losses[f"lora-{seed}"] = made.finished.metrics["validation_loss"]
            seconds["lora"] = made.steps_seconds
        for method in VARIANTS:
            # rsLoRA multiplies by alpha / sqrt(rank): the same factor as LoRA's alpha / rank needs another alpha.
            alpha = 2.0 * plain.rank**0.5 if method is Method.RSLORA else plain.alpha
            made = self._train(method, data, replace(plain, method=method, alpha=alpha))
            losses[method] = made.finished.metrics["validation_loss"]
            seconds[method] = made.steps_seconds
        usual = [losses[f"lora-{seed}"] for seed in seeds]
        noise = max(usual) - min(usual)
        middle = sorted(usual)[len(usual) // 2]
        return [
            Row(
                what=f"{method}: held-out loss after the same steps as LoRA",
                unit="nats/token",
                ours=losses[method],
                peers={"LoRA": middle},
                ratio=losses[method] / middle,
                ask="within noise of LoRA's seeds",
                met=None if self.quick else min(usual) - noise <= losses[method] <= max(usual) + noise,
                n=1,
                note=f"LoRA with {len(seeds)} seeds: {', '.join(f'{loss:.3f}' for loss in usual)}; "
                f"its steps {seconds['lora']:.0f} s, these {seconds[method]:.0f} s",
            )
            for method in VARIANTS
        ]


def _classified(
    minutes: int, used: Configuration, made: Trained, score: float, base: float, requested: int, seen: int
) -> list[Row]:
    return [
        Row(
            what=f"intents of the {DOMAIN} domain, trained in {minutes} minutes: exact match on its test utterances",
            unit="%",
            ours=100 * score,
            peers={"base model": 100 * base},
            ask="at least 97",
            met=score >= 0.97,
            n=1,
            note=f"{requested} utterances; {used.epochs:g} epochs of {seen} samples in batches of {used.batch_size}, "
            + (f"the last {used.layers} layers adapted" if used.layers else "all layers adapted"),
        ),
        Row(
            what=f"time of that training, {minutes} minutes allowed: from the start of its process to the artifact",
            unit="s",
            ours=made.seconds,
            peers={"a plain loop, two epochs, 98.2 % (a figure from elsewhere)": 353.0},
            ask=f"at most {60 * minutes}",
            met=made.seconds <= 60 * minutes,
            n=1,
            note=f"{made.steps_seconds:.0f} s of it are steps, at {made.tokens_per_second:.0f} tokens/s",
        ),
    ]


def _held_out(what: str, before: float, after: float, note: str) -> Row:
    return Row(
        what=what,
        unit="%",
        ours=100 * after,
        peers={"before training": 100 * before},
        ask="well above chance, 50",
        met=after >= 0.75,
        n=1,
        note=note,
    )
