"""`lorafleet demo-loop`: an adapter with a gap in its knowledge, users who correct it, a loop that closes the gap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from fleet_cli.commands import up
from fleet_cli.commands.golden import ensure_golden
from fleet_cli.commands.lifecycle import follow
from fleet_cli.files import to_ndjson
from fleet_cli.follow.lifecycle import Outcome
from fleet_cli.group import CommandGroup
from fleet_cli.loop_story import Figures, Story
from fleet_cli.session import Session, table
from fleet_events import v1
from fleet_events.v1 import RolloutMetric
from lorafleet import calls
from lorafleet.errors import FleetError
from lorafleet.responses import Adapter, EvaluationDetail, Evidence, Job, RetrainingFiring

EXAMPLES = Path(__file__).parents[3] / "examples"
ANSWER_TOKENS = 48
USERS_AT_ONCE = 4
POLL_SECONDS = 1.0
GOOD, BAD = 5, 1
MOST_LISTED = 1000
ENDED = ("succeeded", "failed", "cancelled")
"""States of jobs that are final."""
Found = TypeVar("Found")


def add(root: CommandGroup) -> None:
    """Add `demo-loop` to the root."""

    @root.command("demo-loop")
    def demo_loop(
        session: Session,
        *,
        examples: Annotated[
            Path, typer.Option("--examples", help="Folder with the loop's settings, loop.json.")
        ] = EXAMPLES / "demo-loop",
        data: Annotated[Path, typer.Option("--data", help="Folder with the handbook's data.")] = EXAMPLES / "demo",
        patience: Annotated[float, typer.Option("--patience", help="Longest wait for one step, in seconds.")] = 1800.0,
    ) -> None:
        """Run the closed loop: users correct an adapter, which is retrained, judged and promoted without a person."""
        began = time.monotonic()
        story = Story.read(examples, data)
        with up.running(session):
            session.note(f"`lorafleet events tail --home {session.home.folder}` shows every step in another terminal")
            _loop(session, story, patience)
        session.note(f"the closed loop took {time.monotonic() - began:.0f} s")


def _loop(session: Session, story: Story, patience: float) -> None:
    golden = f"{story.domain}-golden"
    first = _first_version(session, story, golden, patience)
    found = session.client.call(calls.add_golden_samples(golden, to_ndjson(list(story.golden_gap))))
    session.note(f"{golden} version {found.version} asks about the gap too: {found.total_samples} golden samples")
    training = {
        "golden_dataset_id": golden,
        "description": story.description,
        **_object(story.rules.get("training")),
    }
    session.client.call(calls.set_retraining(story.domain, {**story.rules, "training": training}))
    session.note("retraining rules are set; from here on no person decides anything")
    if not _fired(session, story.domain):  # else an earlier run, which was cut short, has its corrections
        converse(session, story, f"{story.domain}-lora")
    corrected = _corrections(session, story)
    firing = _wait(session, "a rule to fire", patience, lambda: _fired(session, story.domain))
    session.note(f"retraining fired: {firing.reason}")
    _wait(session, "the retraining", patience, lambda: _trained(session, firing.job_id))
    second = _wait(session, "its judgement and rollout", patience, _Rollout(session, story, first).promoted)
    _show(session, story, _judged(session, first, second), firing, corrected)


def _first_version(session: Session, story: Story, golden: str, patience: float) -> str:
    """Train, judge and activate a version that knows nothing of the gap; its id.

    Where an earlier run of the demo was cut short, what it began is waited for: the trainer has taken its job up again.
    """
    policy = session.client.call(calls.policy(story.domain))
    session.client.call(calls.set_policy(story.domain, {**policy, **story.policy}))
    if _first_of(session, story) or any(one.state not in ENDED for one in _jobs(session, story)):
        return _wait(session, "the first version of an earlier run", patience, lambda: _activated(session, story))
    ensure_golden(session, golden, story.domain)
    session.client.call(calls.add_golden_samples(golden, to_ndjson(list(story.golden_known))))
    session.client.call(calls.record_samples(story.domain, to_ndjson(list(story.known))))
    request = v1.TrainingRequested(
        domain=story.domain,
        method=v1.Method.LORA,
        golden_dataset_id=golden,
        description=story.description,
        hyperparameters=v1.Hyperparameters.model_validate(dict(story.first)),
    )
    loop = follow(session, request)
    if loop.outcome is not Outcome.ACTIVE:
        raise FleetError(f"the first version is not active: {loop.reason}")
    return loop.adapter_id


def _activated(session: Session, story: Story) -> str | None:
    """The first version once it is active, or was; it is this domain's oldest."""
    first = _first_of(session, story)
    if first is None:
        if all(one.state in ("failed", "cancelled") for one in _jobs(session, story)):
            raise FleetError("the training of an earlier run has failed; `lorafleet jobs list` shows why")
        return None
    if first.status in ("rejected", "pending_review") and first.metrics.get("llm_judge_score") is not None:
        raise FleetError(f"{first.adapter_id} is {first.status}; `lorafleet adapters audit {first.adapter_id}` has why")
    return first.adapter_id if first.status == "approved" else None


def _first_of(session: Session, story: Story) -> Adapter | None:
    found: list[Adapter] = session.client.call(calls.adapters(story.domain))
    return found[-1] if found else None  # the newest comes first


def _jobs(session: Session, story: Story) -> list[Job]:
    return [one for one in session.client.call(calls.jobs()) if one.domain == story.domain]


def _corrections(session: Session, story: Story) -> int:
    """How many answers users have corrected so far, in an earlier run included."""
    given = session.client.call(calls.answer_feedback(story.domain, None, MOST_LISTED))
    return sum(bool(one.correction) for one in given)


def converse(session: Session, story: Story, model: str) -> int:
    """Users send questions about the gap, rate each answer and correct the wrong ones; how many they corrected."""
    corrected = 0
    for number, (question, right) in enumerate(story.questions):
        corrected += not rate(session, model, question, right, f"user-{number}")
    session.note(f"users sent {len(story.questions)} questions about the gap and corrected {corrected} answers")
    return corrected


def rate(session: Session, model: str, question: str, right: str, user: str) -> bool:
    """One question of one user, who rates the answer, and corrects it unless it is the handbook's; whether it is."""
    answer = session.client.call(calls.chat(model, question, max_tokens=ANSWER_TOKENS, user=user))
    known = " ".join(answer.text.split()) == right
    correction = None if known else right
    session.client.call(calls.feedback(answer.id, GOOD if known else BAD, correction=correction, subject=user))
    return known


def _fired(session: Session, domain: str) -> RetrainingFiring | None:
    return next(iter(session.client.call(calls.retraining_firings(domain)).firings), None)


def _trained(session: Session, job_id: str) -> Job | None:
    found = next((one for one in session.client.call(calls.jobs()) if one.job_id == job_id), None)
    if found is not None and found.state in ("failed", "cancelled"):
        raise FleetError(f"job {job_id} is {found.state}: {found.error}")
    return found if found is not None and found.state == "succeeded" else None


@dataclass
class _Rollout:
    """The new version on its way: judged, then given to a part of the users until a test on their traffic decides."""

    session: Session
    story: Story
    first: str
    users: int = 0

    def promoted(self) -> str | None:
        """The new version once it is active; until then a few more users ask and rate, where it is rolled out."""
        versions: list[Adapter] = self.session.client.call(calls.adapters(self.story.domain))
        second = next((one for one in versions if one.adapter_id != self.first), None)
        if second is None or second.active:
            return second.adapter_id if second else None
        if second.status == "rejected":
            raise FleetError(f"{second.adapter_id} was rejected; `lorafleet evaluations list` shows its score")
        family = f"{self.story.domain}-lora"
        rollout = self.session.client.call(calls.rollout(family)).rollout if second.status == "approved" else None
        if rollout is not None and rollout.state == "rolled_back":
            raise FleetError(f"{second.adapter_id} was rolled back; `lorafleet adapters rollout {family}` shows why")
        for _ in range(USERS_AT_ONCE if rollout is not None else 0):
            question, right = self.story.questions[self.users % len(self.story.questions)]
            rate(self.session, family, question, right, f"later-user-{self.users}")
            self.users += 1
        return None


def _judged(session: Session, first: str, second: str) -> tuple[EvaluationDetail, EvaluationDetail]:
    """The newest evaluation of the new version, and the old one's on the same golden samples."""
    (after,) = session.client.call(calls.evaluations(second))[:1]
    earlier = session.client.call(calls.evaluations(first))
    before = next((one for one in earlier if one.golden_sha256 == after.golden_sha256), None)
    if before is None:
        raise FleetError(f"{first} was not judged on the golden samples of {second}")
    return (
        session.client.call(calls.evaluation(before.evaluation_id)),
        session.client.call(calls.evaluation(after.evaluation_id)),
    )


def _show(
    session: Session,
    story: Story,
    judged: tuple[EvaluationDetail, EvaluationDetail],
    firing: RetrainingFiring,
    corrected: int,
) -> None:
    before, after = judged
    versions = before.adapter_id, after.adapter_id
    parts = {"the gap": story.golden_gap, "what it knew": story.golden_known}
    found = {
        what: Figures.of([str(one["sample_id"]) for one in samples], before.results, after.results)
        for what, samples in parts.items()
    }
    rows = [
        (
            what,
            one.samples,
            f"{one.before:.1f}",
            f"{one.after:.1f}",
            f"{one.passed_before} → {one.passed_after}",
            f"{one.win_rate:.0%}",
        )
        for what, one in found.items()
    ]
    live = _live_ratings(session, f"{story.domain}-lora")
    columns = ("HELD-OUT QUESTIONS ABOUT", "N", *versions, "PASSED", "WIN RATE")
    value = {
        "versions": versions,
        "job": firing.job_id,
        "reason": firing.reason,
        "corrected": corrected,
        "live_ratings": live.model_dump(mode="json") if live else None,
        "figures": {what: vars(one) for what, one in found.items()},
    }
    session.answer(value, table(columns, rows, title=f"{corrected} corrections, one retraining: {firing.reason}"))
    if live is not None:
        session.note(
            f"ratings during the rollout: {live.incumbent:.2f} ({versions[0]}, {live.incumbent_outcomes} answers), "
            f"{live.candidate:.2f} ({versions[1]}, {live.candidate_outcomes} answers)"
        )
    gap = found["the gap"]
    if gap.after <= gap.before:
        raise FleetError(f"the gap is not closed: score {gap.before:.1f} before, {gap.after:.1f} after")


def _live_ratings(session: Session, family: str) -> Evidence | None:
    """The mean ratings of both versions while they were used side by side."""
    rollout = session.client.call(calls.rollout(family)).rollout
    evidence = rollout.evidence if rollout is not None else []
    return next((one for one in evidence if one.metric == RolloutMetric.RATING and one.candidate is not None), None)


def _wait(session: Session, what: str, patience: float, look: Callable[[], Found | None]) -> Found:
    """What `look` finds, called until it does; raises `FleetError` after so many seconds."""
    began = time.monotonic()
    session.note(f"waiting for {what}")
    while (found := look()) is None:
        if time.monotonic() - began > patience:
            raise FleetError(f"waited {patience:.0f} s for {what}, which did not come")
        time.sleep(POLL_SECONDS)
    session.note(f"{what}: done after {time.monotonic() - began:.0f} s")
    return found


def _object(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}
