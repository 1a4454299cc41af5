"""Verdicts made once more: by today's code from the answers that are kept, or by the judge, asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fleet_kit.blobs import BlobRef, Blobs
from fleet_kit.errors import BlobCorrupt, BlobMissing
from services.evaluator.code_tests.code_tests import CodeTests
from services.evaluator.golden.samples import GoldenSample
from services.evaluator.judging import reference_judge
from services.evaluator.judging.calibration import UNCALIBRATED, Calibration
from services.evaluator.judging.endpoint import NoAnswer
from services.evaluator.judging.judge import Finding, JudgeDescription, settled, with_history
from services.evaluator.judging.judgement import unjudged
from services.evaluator.judging.ledger import Exchange, Ledger
from services.evaluator.judging.signals import Signals
from services.evaluator.judging.store import Spent

Kept = Mapping[str, tuple[BlobRef, BlobRef]]
"""SHA-256 of a request → the request and its answer in the object store."""


class NotReplayable(Exception):
    """What a verdict was made from is not there any more; the message has what is missing."""


async def content_of(blobs: Blobs, blob: BlobRef) -> bytes:
    """A kept request or answer; raises NotReplayable."""
    try:
        return await blobs.get(blob)
    except BlobMissing as error:
        raise NotReplayable(f"{blob.uri} has left the object store") from error
    except BlobCorrupt as error:
        raise NotReplayable(f"{blob.uri} is not what was stored: {error}") from error


class RecordedLedger:
    """The exchanges of one sample as they were recorded: it has their answers, and no others are requested."""

    def __init__(self, kept: Kept, blobs: Blobs, *, unanswered: bool) -> None:
        """unanswered: the recorded verdict lacks answers, so that a request without one is no surprise."""
        self._kept = kept
        self._blobs = blobs
        self._unanswered = unanswered

    async def recall(self, request: bytes) -> bytes | None:
        """Raises NotReplayable for a first request that was not recorded, NoAnswer for one that had no answer then."""
        found = self._kept.get(hashlib.sha256(request).hexdigest()) or await self._similar(request)
        if found is None:
            raise self.unknown(request)
        return await content_of(self._blobs, found[1])

    async def keep(self, exchange: Exchange) -> None:
        """Nothing is requested, so nothing is kept."""

    async def spent(self) -> Spent:
        return Spent()

    def unknown(self, request: bytes) -> NoAnswer | NotReplayable:
        """What a request that is not recorded means."""
        if follows_up(request):
            return NoAnswer("today's code finds no verdict in the recorded answers")
        if self._unanswered:
            return NoAnswer("no answer to this request is recorded")
        if not self._kept:
            return NotReplayable("its exchanges with the judge are not kept any more")
        return NotReplayable("today's request is not the recorded one: prompt, parameters or sample have changed")

    async def _similar(self, request: bytes) -> tuple[BlobRef, BlobRef] | None:
        """A recorded follow-up at the same place: what it criticises may be worded otherwise by now."""
        if not follows_up(request):
            return None
        wanted = _place(request)
        for sent, answer in self._kept.values():
            content = await content_of(self._blobs, sent)
            if follows_up(content) and _place(content) == wanted:
                return sent, answer
        return None


class Bill:
    """What all requests of a replay took together."""

    def __init__(self) -> None:
        self.spent = Spent()

    def add(self, exchange: Exchange) -> None:
        self.spent = Spent(
            self.spent.requests + 1,
            self.spent.prompt_tokens + exchange.prompt_tokens,
            self.spent.answer_tokens + exchange.answer_tokens,
            self.spent.cost + exchange.cost,
            self.spent.seconds + exchange.seconds,
        )


class AgainLedger(RecordedLedger):
    """The same requests, sent once more within the judge's budget; the recorded answers stay what they are."""

    def __init__(self, kept: Kept, blobs: Blobs, bill: Bill, *, unanswered: bool) -> None:
        super().__init__(kept, blobs, unanswered=unanswered)
        self._bill = bill

    async def recall(self, request: bytes) -> bytes | None:
        """Raises what `RecordedLedger` raises for a first request that was not recorded."""
        if hashlib.sha256(request).hexdigest() not in self._kept and not follows_up(request):
            raise self.unknown(request)
        return None

    async def keep(self, exchange: Exchange) -> None:
        self._bill.add(exchange)

    async def spent(self) -> Spent:
        return self._bill.spent


def follows_up(request: bytes) -> bool:
    """Whether a request criticises a former answer."""
    return len(json.loads(request)["messages"]) > 2


def _place(request: bytes) -> tuple[str, str, int]:
    body = json.loads(request)
    return body["model"], body["messages"][1]["content"], body["seed"]


class RecordedReference:
    """The reference judge on the measurements that an evaluation recorded, without the models that made them."""

    calibrations: Mapping[str, Calibration] = {reference_judge.NAME: UNCALIBRATED}

    def __init__(self, evidence: Mapping[str, Mapping[str, Any]], tests: CodeTests) -> None:
        """evidence: that of each sample's result, by sample id."""
        self._evidence = evidence
        self._tests = tests

    @property
    def name(self) -> str:
        return reference_judge.NAME

    @property
    def description(self) -> JudgeDescription:
        name, _, version = reference_judge.NAME.partition("/")
        return JudgeDescription(name, version, "", "", {})

    async def judge(self, sample: GoldenSample, question: str, answer: str, ledger: Ledger) -> Finding:  # noqa: ARG002
        """A sample whose measurements were not recorded, since rules did not settle it, is unjudged."""
        signals = recorded_signals(self._evidence.get(sample.sample_id, {}))
        if signals is None:
            return Finding(unjudged("its measurements are not recorded"), {})
        return await settled(with_history(sample), answer, signals, self._tests)


def recorded_signals(evidence: Mapping[str, Any]) -> Signals | None:
    """The reference judge's measurements in a result's evidence, its own or a panel's."""
    own = [evidence]
    for name, member in (evidence.get("members") or {}).items():
        if name.startswith(reference_judge.NAME.partition("/")[0]):
            own.append(member["evidence"])
    fields = Signals.__dataclass_fields__.keys()
    return next((Signals.from_json(dict(one)) for one in own if one.keys() == fields), None)


def lacks_answers(evidence: Mapping[str, Any]) -> bool:
    """Whether requests of the recorded verdict had no answer, or none that was a verdict."""
    members = (evidence.get("members") or {}).values()
    return bool(evidence.get("missing")) or any(lacks_answers(member["evidence"]) for member in members)
