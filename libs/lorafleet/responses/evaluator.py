"""What the evaluator answers: golden data sets, evaluations and how far judges agree with people."""

from __future__ import annotations

from pydantic import Field

from lorafleet.responses.reply import Reply


class GoldenSet(Reply):
    """A golden data set."""

    dataset_id: str
    domain: str = ""
    version: str = ""
    description: str = ""
    total_samples: int = 0
    sha256: str | None = None


class GoldenChanged(GoldenSet):
    """What became of imported golden samples."""

    read: int = 0
    changed: bool = False
    opened: str | None = None


class JudgedSample(Reply):
    """A golden sample with the answer that was judged; `overall` is null where it has no score."""

    sample_id: str
    system: str = ""
    history: list[dict[str, str]] = Field(default_factory=list)
    prompt: str = ""
    question: str = ""
    answer: str = ""
    overall: float | None = None
    passed: bool = False


class Evaluation(Reply):
    """An evaluation, under way or done."""

    evaluation_id: str
    adapter_id: str = ""
    golden_dataset_id: str = ""
    state: str = ""
    score: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    done: int = 0
    total: int = 0
    golden_sha256: str = ""
    judge: str = ""
    max_tokens: int = 0

    @property
    def terms(self) -> tuple[str, str, int]:
        """What two evaluations have to share for their scores to be compared: samples, judge, length of answers."""
        return self.golden_sha256, self.judge, self.max_tokens


class EvaluationDetail(Evaluation):
    """An evaluation with every judged sample."""

    results: list[JudgedSample] = Field(default_factory=list)


class Bounds(Reply):
    """An estimate with its interval."""

    value: float
    low: float
    high: float


class PreferenceAgreement(Reply):
    """How often a judge prefers, of two versions' answers, what people prefer."""

    pairs: int
    rate: Bounds
    consistency: float


class Agreement(Reply):
    """How far a judge agrees with people; null where too few answers are labelled."""

    judge: str
    domain: str
    answers: int
    alpha: Bounds | None = None
    pairwise: Bounds | None = None
    bias: float | None = None
    length_bias: float | None = None
    preferences: PreferenceAgreement | None = None


class Calibration(Reply):
    """How a judge's scores become people's: intercept + slope × score, on 0 to 100."""

    judge: str
    domain: str
    intercept: float
    slope: float
    answers: int
    pairs: int = 0
    pairs_agreed: float = 0.0
