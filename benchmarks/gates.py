"""How many bad and good adapters the gates let through: `python -m benchmarks.gates [--quick] [--json FILE]`.

Adapters are made from real trainings of the demonstration's base model, uploaded to a fleet of their own, served,
judged on held-out questions and decided on under the default policy: 42 bad ones and 20 good ones, with --quick one of
each kind. One is trained while others are judged. With --state FOLDER the fleet and its decisions are kept there, and
the next run continues from them; with --seconds N no adapter is begun after N seconds; with --from K the first K of
each kind are left out, which a run elsewhere has decided.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import gate_world as world
from benchmarks.gate_decisions import Decision, Decisions
from benchmarks.gate_workshop import STEPS, Workshop
from benchmarks.report import Row, emit
from fleet_cli.stack import Fleet, prepare_base_model
from fleet_cli.stack.home import Home, default_home
from fleet_events import v1
from fleet_events.topology import row_of
from lora_core import LoRACard
from lora_core.interop import to_peft

DECISIONS = {"approved", "rejected", "review_requested"}
PATIENCE = 3600.0  # seconds until one adapter is decided on
AT_ONCE = 3  # adapters between the begin of their training and their decision


@dataclass(frozen=True)
class Candidate:
    """One adapter to be decided on; `make` is None for the one whose data the fleet's own trainer gets."""

    kind: str
    number: int
    good: bool
    make: Callable[[], LoRACard] | None

    @property
    def domain(self) -> str:
        return f"{self.kind.replace(' ', '-')}-{self.number}"


def candidates(workshop: Workshop, *, each: int, good: int, first: int = 0) -> Iterator[Candidate]:
    """All from a number on, the kinds in turn: a run that is cut short has seen some of every kind."""
    for number in range(first, max(each, good)):
        yield from _of_each_kind(workshop, number, bad=number < each, good=number < good)


def _of_each_kind(workshop: Workshop, number: int, *, bad: bool, good: bool) -> Iterator[Candidate]:
    makers = {
        "noise": workshop.noisy,
        "half trained": workshop.half_trained,
        "another domain": workshop.of_another_domain,
        "altered facts": workshop.of_altered_facts,
        "overfit": workshop.overfit,
        "merged away": workshop.merged_away,
    }
    if good:
        yield Candidate("good", number, True, partial(workshop.learnt, number))
    if bad:
        for kind, make in makers.items():
            yield Candidate(kind, number, False, partial(make, number))
        yield Candidate("leaked golden", number, False, None)


class Gate:
    """The fleet, from the outside."""

    def __init__(self, fleet: Fleet, client: httpx.AsyncClient, workshop: Workshop) -> None:
        self._fleet = fleet
        self._client = client
        self._workshop = workshop

    async def decide(self, candidate: Candidate) -> str:
        """`approved`, `rejected`, `review_requested`, or `not trained`."""
        golden = f"{candidate.domain}-golden"
        evaluator = self._url("evaluator", "/v1/golden")
        made = await self._client.post(evaluator, json={"dataset_id": golden, "domain": candidate.domain})
        made.raise_for_status()
        lines = "\n".join(json.dumps(one) for one in world.golden())
        (await self._client.post(f"{evaluator}/{golden}/samples", content=lines)).raise_for_status()
        if candidate.make is None:
            return await self._train(candidate, golden)
        if present := await self._uploaded(candidate.domain):
            return await self._decision(present)
        folder = self._workshop.folder / candidate.domain
        to_peft(await self._workshop.make(candidate.make), folder)
        files = [("files", (path.name, path.read_bytes())) for path in sorted(folder.iterdir())]
        fields = {"domain": candidate.domain, "golden_dataset_id": golden}
        sent = await self._client.post(self._url("registry", "/v1/adapters"), data=fields, files=files)
        sent.raise_for_status()
        return await self._decision(sent.json()["adapter_id"])

    async def _uploaded(self, domain: str) -> str | None:
        """The domain's adapter, where an earlier run ended before its decision."""
        listed = await self._client.get(self._url("registry", "/v1/adapters"), params={"domain": domain})
        listed.raise_for_status()
        return next((str(one["adapter_id"]) for one in listed.json()["adapters"]), None)

    async def _train(self, candidate: Candidate, golden: str) -> str:
        """Give the golden questions with their answers to the trainer, as a careless upstream would."""
        job = f"{candidate.domain}-job"
        if (await self._client.get(self._url("trainer", f"/v1/jobs/{job}"))).status_code == 404:
            await self._request_training(candidate, golden, job)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = await self._client.get(self._url("trainer", f"/v1/jobs/{job}"))
            if state.status_code == 200 and state.json()["state"] in {"failed", "cancelled"}:
                return "not trained"
            if state.status_code == 200 and state.json()["state"] == "succeeded":
                return await self._decision(f"{candidate.domain}-lora-v1.0.0")
            await asyncio.sleep(1)
        raise TimeoutError(f"{job} did not end within {PATIENCE:g} s")

    async def _request_training(self, candidate: Candidate, golden: str, job: str) -> None:
        upstream = await self._fleet.connect_nats("upstream")
        request = v1.TrainingRequested(
            domain=candidate.domain,
            job_id=job,
            golden_dataset_id=golden,
            hyperparameters=v1.Hyperparameters(
                max_steps=STEPS, batch_size=8, learning_rate=2e-3, seed=candidate.number
            ),
        )
        leaked = world.pairs(world.FACTS, world.HELD_OUT)
        samples = [v1.SampleRecorded(domain=candidate.domain, prompt=p, completion=c, rating=5) for p, c in leaked]
        try:
            for number, event in enumerate([*samples, request]):
                headers = {"ce-id": f"{job}-{number}", "ce-type": event.type_name, "ce-source": "gates"}
                headers |= {"content-type": "application/json", "Nats-Msg-Id": f"{job}-{number}"}
                subject = row_of(type(event)).subject
                await upstream.jetstream().publish(subject, event.to_json(), headers=headers)
                if event is samples[-1]:
                    await asyncio.sleep(5)  # the samples are there before the request names them
        finally:
            await upstream.close()

    async def _decision(self, adapter_id: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            trail = await self._client.get(self._url("registry", f"/v1/adapters/{adapter_id}/audit"))
            if trail.status_code == 200:
                for entry in trail.json()["entries"]:
                    if entry["action"] in DECISIONS:
                        print(f"{adapter_id}: {entry['action']}: {entry['reason']}", flush=True)
                        return str(entry["action"])
            await asyncio.sleep(1)
        raise TimeoutError(f"{adapter_id} was not decided on within {PATIENCE:g} s")

    def _url(self, service: str, path: str) -> str:
        return f"{self._fleet.info.services[service].url}{path}"


@dataclass(frozen=True)
class Extent:
    """How much is decided: of each bad kind and of the good ones, the first ones left out, begun within `seconds`."""

    each: int
    good: int
    first: int
    seconds: float


async def run(fleet: Fleet, work: Path, decisions: Decisions, extent: Extent) -> list[Row]:
    """One row for the good ones, one for the bad, and one for each kind of these."""
    workshop = Workshop(prepare_base_model(Home(default_home()).models).path, work)
    headers = {"Authorization": f"Bearer {fleet.info.token('admin')}"}
    end = time.monotonic() + extent.seconds
    places = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(headers=headers, timeout=120) as client, asyncio.TaskGroup() as deciding:
        gate = Gate(fleet, client, workshop)

        async def decide(candidate: Candidate) -> None:
            async with places:
                if (began := time.monotonic()) > end:
                    return
                outcome = await gate.decide(candidate)
            took = round(time.monotonic() - began, 1)
            decisions.add(Decision(candidate.domain, candidate.kind, candidate.good, outcome, took))
            print(f"{candidate.domain}: {outcome} after {took:g} s", flush=True)

        for candidate in candidates(workshop, each=extent.each, good=extent.good, first=extent.first):
            if candidate.domain not in decisions:
                deciding.create_task(decide(candidate))
    return rows(decisions, all_good=extent.good, all_bad=extent.each * 7)


def rows(decisions: Decisions, *, all_good: int, all_bad: int) -> list[Row]:
    """`met` is None while fewer are decided on than there are, unless a bad one came through."""
    approved, seen = Counter[str](), Counter[str]()
    for one in decisions:
        seen[one.kind] += 1
        approved[one.kind] += one.outcome == "approved"
    bad = [kind for kind in seen if kind != "good"]
    let_through, bad_seen = sum(approved[kind] for kind in bad), sum(seen[kind] for kind in bad)
    all_seen = bad_seen == all_bad and seen["good"] == all_good
    enough = approved["good"] >= 0.9 * all_good
    note = "" if all_seen else f"{seen['good']} of {all_good} good and {bad_seen} of {all_bad} bad ones so far"
    return [
        Row(
            "bad adapters approved",
            "of all",
            let_through,
            ask="0",
            met=let_through == 0 if all_seen or let_through else None,
            n=bad_seen,
            note=note,
        ),
        Row(
            "good adapters approved",
            "of all",
            approved["good"],
            ask="≥ 90 %",
            met=enough if all_seen else None,
            n=seen["good"],
            note=note,
        ),
        *(Row(f"bad adapters approved: {kind}", "of all", approved[kind], n=seen[kind]) for kind in bad),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Fails where a bad adapter came through or too few good ones did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="keep the fleet and its decisions here, and go on")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no adapter is begun after these")
    parser.add_argument("--from", type=int, default=0, metavar="K", dest="first", help="leave out K of each kind")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as passing:
        state = chosen.state or Path(passing)
        state.mkdir(parents=True, exist_ok=True)
        decisions = Decisions(state / "decisions.jsonl")
        each, good = (1, 1) if chosen.quick else (6, 20)
        with tempfile.TemporaryDirectory() as work, Fleet(state / "home") as fleet:
            fleet.start()
            extent = Extent(each, good, chosen.first, chosen.seconds)
            result = asyncio.run(run(fleet, Path(work), decisions, extent))
    emit(result, chosen.json)
    return 0 if all(row.met for row in result if row.met is not None) else 1


if __name__ == "__main__":
    sys.exit(main())
