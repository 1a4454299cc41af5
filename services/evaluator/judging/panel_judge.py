"""Several judges as one: the mean of their calibrated scores, where more than half of them can decide."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fleet_kit.tasks import end
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import judgement
from services.evaluator.judging.calibration import Calibration
from services.evaluator.judging.criteria import Criterion
from services.evaluator.judging.judge import Finding, Judge, JudgeDescription
from services.evaluator.judging.judgement import Judgement, Verdict, judged, unjudged
from services.evaluator.judging.ledger import Ledger
from services.evaluator.judging.pair_agreement import UNMEASURED, PairAccuracy

VERSION = "1"


@dataclass(frozen=True)
class Member:
    """One judge of a panel."""

    judge: Judge
    calibration: Calibration
    pairs: PairAccuracy = UNMEASURED

    @property
    def told(self) -> str:
        """Its calibration as JSON, for the panel's description."""
        measured = {"pairs": self.pairs.pairs, "pairs_agreed": self.pairs.agreed} if self.pairs.pairs else {}
        return json.dumps({**asdict(self.calibration), **measured})


class PanelJudge:
    """Asks every member about every answer. Members that cannot decide are left out of the mean."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self._name = name
        self._members = members

    @property
    def name(self) -> str:
        """With a digest of all members and their calibrations."""
        return f"{self._name}/{VERSION}+{self.description.fingerprint[:12]}"

    @property
    def description(self) -> JudgeDescription:
        parameters = {member.judge.name: member.told for member in self._members}
        return JudgeDescription(self._name, VERSION, "", "", parameters)

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        return {member.judge.name: member.calibration for member in self._members}

    async def judge(self, sample: GoldenSample, question: str, answer: str, ledger: Ledger) -> Finding:
        """Raises what a member raises: a panel of those that happen to be available would be another judge."""
        tasks = [asyncio.create_task(one.judge.judge(sample, question, answer, ledger)) for one in self._members]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            await end(*tasks)
        evidence = {
            member.judge.name: {
                "overall": finding.judgement.overall,
                "standing": str(finding.judgement.standing),
                "why": finding.judgement.why,
                "evidence": dict(finding.evidence),
            }
            for member, finding in zip(self._members, found, strict=True)
        }
        votes = [(member, finding.judgement) for member, finding in zip(self._members, found, strict=True)]
        return Finding(combined(sample, votes), {"members": evidence})


def combined(sample: GoldenSample, votes: Sequence[tuple[Member, Judgement]]) -> Judgement:
    """The panel's judgement. A must-rule counts as broken where more than half of the deciding members find it so."""
    deciding = [(member, vote) for member, vote in votes if vote.standing is judgement.Standing.DECIDED]
    if len(deciding) * 2 <= len(votes):
        undecided = next(f"{m.judge.name}: {v.why}" for m, v in votes if v.standing is not judgement.Standing.DECIDED)
        return unjudged(f"{len(deciding)} of {len(votes)} members could decide; {undecided}")
    verdicts = {criterion: _mean(deciding, criterion) for criterion in Criterion}
    broken: dict[Criterion, tuple[str, ...]] = {}
    for veto in dict.fromkeys(text for _, vote in deciding for text in vote.vetoes):
        if sum(veto in vote.vetoes for _, vote in deciding) * 2 > len(deciding):
            criterion = _criterion_of(sample, veto)
            broken[criterion] = (*broken.get(criterion, ()), veto)
    return judgement.vetoed(judged(verdicts), broken)


def _mean(deciding: Sequence[tuple[Member, Judgement]], criterion: Criterion) -> Verdict:
    """With the reason of the member nearest to the mean."""
    scores = [(m.calibration.of_criterion(v.verdicts[criterion].score), m, v) for m, v in deciding]
    mean = sum(score for score, _, _ in scores) / len(scores)
    _, member, vote = min(scores, key=lambda one: abs(one[0] - mean))
    return Verdict(round(mean, 2), f"{member.judge.name}: {vote.verdicts[criterion].reason}")


def _criterion_of(sample: GoldenSample, veto: str) -> Criterion:
    written = ((criterion, rule) for criterion, rules in sample.rules.items() for rule in rules)
    bare = veto.removeprefix("note:").strip()
    return next((c for c, rule in written if bare in rule.text), Criterion.ACCURACY)
