"""What the services answer: the fields that the command line reads. Everything else is kept for --json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    """An answer; unknown fields are kept, so that a newer service loses nothing here."""

    model_config = ConfigDict(extra="allow", frozen=True)


class JobAccepted(Reply):
    """A training job that was queued."""

    job_id: str


class Attempt(Reply):
    """One worker's time with a job."""

    number: int
    worker: str = ""
    started_at: str = ""
    ended_at: str | None = None
    outcome: str | None = None
    reason: str = ""


class Job(Reply):
    """A training job."""

    job_id: str
    state: str
    domain: str = ""
    method: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    attempts: int = 0
    priority: int = 0
    error: str | None = None
    history: list[Attempt] = []


class Metric(Reply):
    """One logged step of a training."""

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None


class Withdrawal(Reply):
    """Where a decision to take a version out of service has been applied."""

    published: bool = True
    pending: tuple[str, ...] = ()


class Adapter(Reply):
    """A version of an adapter, as the registry holds it."""

    adapter_id: str
    family: str = ""
    domain: str = ""
    method: str = ""
    version: str = ""
    status: str = ""
    active: bool = False
    metrics: dict[str, object] = {}
    withdrawal: Withdrawal | None = None


Link = dict[str, object]


class Provenance(Reply):
    """The digest chain of a version; a link that does not exist (yet) is null."""

    adapter_id: str
    origin: Link | None = None
    dataset: Link | None = None
    configuration: Link | None = None
    base_model: Link
    checkpoint: Link
    artifact: Link
    evaluation: Link | None = None
    approval: Link | None = None
    loaded: list[Link] = []
    answers: Link = {}


class AnsweringAdapter(Reply):
    """An adapter that took part in an answer: its version, then those that its training continued."""

    adapter_id: str
    weight: float = 1.0
    chain: list[Provenance] = []
    unknown: list[str] = []


class AnswerProvenance(Reply):
    """Who gave an answer, and what cannot be followed back."""

    generation_id: str
    answered_at: str = ""
    requested_model: str = ""
    routed: str = ""
    fallback: str = ""
    base_model: Link
    adapters: list[AnsweringAdapter] = []
    unknown: list[str] = []


class GoldenSet(Reply):
    """A golden data set."""

    dataset_id: str
    domain: str = ""
    version: str = ""
    description: str = ""
    total_samples: int = 0
    sha256: str | None = None


class Dataset(Reply):
    """A version of a training data set."""

    dataset_id: str
    domain: str = ""
    name: str = ""
    version: int = 0
    kind: str = ""
    query: str = ""
    samples: int = 0
    validation_samples: int = 0


class Uploaded(Reply):
    """A file that recipes may name."""

    upload_id: str
    domain: str = ""
    filename: str = ""
    bytes: int = 0
    created_at: str = ""


class BuildQueued(Reply):
    """A recipe that waits to be built."""

    build_id: str


class BuildFault(Reply):
    """One thing that is wrong with a recipe, or with the data it names."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value}, expected {self.expected}"


class DatasetBuild(Reply):
    """Where a build stands."""

    build_id: str
    state: str
    domain: str = ""
    name: str = ""
    dataset_id: str | None = None
    version: int | None = None
    faults: list[BuildFault] = []

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed")


class DroppedRecord(Reply):
    """A record that a filter dropped."""

    reason: str
    prompt: str = ""
    completion: str = ""


class FilterCount(Reply):
    """What a filter did."""

    dropped: int = 0
    changed: int = 0
    uncertain: int = 0
    reasons: dict[str, int] = {}
    samples: list[DroppedRecord] = []


class DroppedRecords(Reply):
    """What each filter dropped, of the sources' records and of generated ones."""

    filters: dict[str, FilterCount] = {}
    generated: dict[str, FilterCount] = {}


class Recorded(Reply):
    """What became of uploaded samples."""

    received: int = 0
    added: int = 0
    duplicates: int = 0


class GoldenChanged(GoldenSet):
    """What became of imported golden samples."""

    read: int = 0
    changed: bool = False
    opened: str | None = None


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


class Bounds(Reply):
    """An estimate with its interval."""

    value: float
    low: float
    high: float


class Agreement(Reply):
    """How far a judge agrees with people; null where too few answers are labelled."""

    judge: str
    domain: str
    answers: int
    alpha: Bounds | None = None
    pairwise: Bounds | None = None
    bias: float | None = None
    length_bias: float | None = None


class Match(Reply):
    """An adapter that the router would choose."""

    adapter_id: str
    family: str = ""
    domain: str = ""
    score: float
    threshold: float | None = None
    evidence: str = ""
    calibrated_on: int = 0


class RouteAnswer(Reply):
    """What the router would do with a query, and why."""

    outcome: str = ""
    matches: list[Match] = []
    nearest: Match | None = None
    margin: float | None = None
    why: str = ""


class Route(Reply):
    """An adapter that queries are routed to."""

    adapter_id: str
    family: str
    domain: str
    evidence: str | None = None
    vectors: int = 0
    threshold: float | None = None
    calibrated_on: int = 0


class Message(Reply):
    """A chat message."""

    role: str = "assistant"
    content: str | None = ""


class Choice(Reply):
    """One answer of a chat completion."""

    message: Message
    finish_reason: str | None = None


class Weighted(Reply):
    """An adapter of a weighted set."""

    adapter_id: str
    weight: float


class Served(Reply):
    """Who answered: the adapter and its digest, or the base model."""

    adapter_id: str | None = None
    artifact_sha256: str | None = None
    base_model: str = ""
    mix: list[Weighted] | None = None
    routed: object = None


class ChatCompletion(Reply):
    """An answer in OpenAI's form, with `lorafleet` beside it."""

    id: str
    model: str = ""
    choices: list[Choice]
    lorafleet: Served | None = None

    @property
    def text(self) -> str:
        """The first answer."""
        return self.choices[0].message.content or "" if self.choices else ""


class Anything(Reply):
    """An answer that is shown, never computed with."""
