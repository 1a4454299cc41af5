"""Generated from proto-schemas by `python -m fleet_events.codegen`. Do not edit."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet_events.closed_set import ClosedSet, OrEmpty
from fleet_events.message import Event, Message
from fleet_events.protojson import INTEGER, NUMBER, QUOTED, Bool, Double, Int32, Int64, Timestamp


class NamedBy(ClosedSet):
    """jti: the token of this id. subject: the tokens of this subject that were issued up to `revoked_at`."""

    JTI = "jti"
    SUBJECT = "subject"


class RecordKind(ClosedSet):
    """What its records are. completion: the one wanted answer. conversation: the last answer of a talk whose earlier
    answers are wanted too. preference: the chosen answer, then the rejected one. ranking: two or more, best first.
    rated: one answer and its rating, 0 to 5."""

    COMPLETION = "completion"
    CONVERSATION = "conversation"
    PREFERENCE = "preference"
    RANKING = "ranking"
    RATED = "rated"


class Method(ClosedSet):
    """How it was trained: lora, rslora, qlora or dora."""

    LORA = "lora"
    RSLORA = "rslora"
    QLORA = "qlora"
    DORA = "dora"


class RecordAnswers(ClosedSet):
    """Which answers of the domain may become data. none: no answer. rated: an answer that gets feedback. sampled: the
    share `record_fraction` of all requests. all: every answer."""

    NONE = "none"
    RATED = "rated"
    SAMPLED = "sampled"
    ALL = "all"


class PersonalDataAction(ClosedSet):
    """What happens to personal data that has a form (e-mail addresses, telephone, account and card numbers, IP addresses)
    before an answer is recorded. mask: it is replaced by its kind. drop: the answer is not recorded."""

    MASK = "mask"
    DROP = "drop"


class DeliveryMode(ClosedSet):
    """at_once: no rollout. canary: the candidate answers a growing part of the callers. shadow: it answers beside the
    incumbent, shown to nobody. ab: it answers a fixed part of the callers until a difference is shown."""

    AT_ONCE = "at_once"
    CANARY = "canary"
    SHADOW = "shadow"
    AB = "ab"


class RolloutMetric(ClosedSet):
    """error_rate: requests without an answer. refusal_rate: requests that the adapter was not fit to answer, or answered
    with nothing. latency: answers slower than the policy's limit. rating: mean rating, 1 to 5. preference: comparisons
    that the candidate lost. judge: mean score of the judge, 0 to 100."""

    ERROR_RATE = "error_rate"
    REFUSAL_RATE = "refusal_rate"
    LATENCY = "latency"
    RATING = "rating"
    PREFERENCE = "preference"
    JUDGE = "judge"


class RolloutArm(ClosedSet):
    """Whether the candidate or the incumbent was to answer it."""

    CANDIDATE = "candidate"
    INCUMBENT = "incumbent"


class Failure(ClosedSet):
    """refused: the adapter failed its checks, so that it has no proven effect. busy: it was not loaded or had no room in
    time. fault: the engine failed."""

    REFUSED = "refused"
    BUSY = "busy"
    FAULT = "fault"


class Scheduler(ClosedSet):
    """Course of the learning rate: constant, linear or cosine."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class PreferenceLoss(ClosedSet):
    """dpo: sigmoid (also when unset), hinge, ipo, robust, exo_pair, nca_pair, apo_zero, apo_down or sigmoid+sft."""

    SIGMOID = "sigmoid"
    HINGE = "hinge"
    IPO = "ipo"
    ROBUST = "robust"
    EXO_PAIR = "exo_pair"
    NCA_PAIR = "nca_pair"
    APO_ZERO = "apo_zero"
    APO_DOWN = "apo_down"
    SIGMOID_SFT = "sigmoid+sft"


class RankingLoss(ClosedSet):
    """ranking: margin (also when unset), rrhf or listwise."""

    MARGIN = "margin"
    RRHF = "rrhf"
    LISTWISE = "listwise"


class Bump(ClosedSet):
    """Which part to raise when the registry computes the version: patch (also when empty), minor or major."""

    MAJOR = "major"
    MINOR = "minor"
    PATCH = "patch"


class Objective(ClosedSet):
    """What the adapter learns from: sft (completions; also when empty), dpo (preferences) or ranking."""

    SFT = "sft"
    DPO = "dpo"
    RANKING = "ranking"


class ExportKind(ClosedSet):
    """Further forms of the finished adapter: gguf (its own numbers, for llama.cpp), gguf-q8_0, gguf-q6_k and gguf-q4_k_m
    (rounded to llama.cpp's levels), int8 and int4 (Arrow)."""

    GGUF = "gguf"
    GGUF_Q8_0 = "gguf-q8_0"
    GGUF_Q6_K = "gguf-q6_k"
    GGUF_Q4_K_M = "gguf-q4_k_m"
    INT8 = "int8"
    INT4 = "int4"


class RetrainingTrigger(ClosedSet):
    """What a retraining rule reacted to, or a policy that follows the base model; empty for a person's or another system's
    request."""

    NEW_SAMPLES = "new_samples"
    RATING_TREND = "rating_trend"
    DRIFT = "drift"
    SCHEDULE = "schedule"
    NEW_BASE_MODEL = "new_base_model"
    ERASURE = "erasure"


DOMAIN_NAME = "^[a-z0-9][a-z0-9-]{0,62}$"
DomainName = Annotated[str, Field(pattern=DOMAIN_NAME)]


class ApiKeyUse(Message):
    """When an API key was last used."""

    key_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    used_at: Timestamp


class Blob(Message):
    """Content in the object store, addressed by its digest. Readers check the digest."""

    uri: Annotated[str, Field(pattern="^s3://[a-z0-9.-]+/.+$")]
    """Where it lies, for example s3://lorafleet/trainer/artifacts/<sha256>."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the bytes, lower-case hex."""
    bytes: Annotated[int, Field(ge=0, le=2**63 - 1), INTEGER, QUOTED] = 0
    """Size."""


class BaseModel(Message):
    """A base model pinned to exact weights."""

    name: Annotated[str, Field(min_length=1)]
    """Name that requests use, for example SmolLM2-135M-Instruct."""
    revision: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest over the model folder's configuration, weights and tokenizer."""


class Dataset(Message):
    """An immutable set of samples, named by its content."""

    dataset_id: Annotated[str, Field(min_length=1)]
    blob: Blob
    samples: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Number of samples."""
    kind: Annotated[RecordKind | Literal[""], OrEmpty(RecordKind)] = ""
    """What its records are. completion: the one wanted answer. conversation: the last answer of a talk whose earlier
 answers are wanted too. preference: the chosen answer, then the rejected one. ranking: two or more, best first.
 rated: one answer and its rating, 0 to 5."""
    validation_samples: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """How many of the samples are its validation split."""
    card: Blob | None = None
    """Data card, JSON: sources, filters and what they dropped, counts, licence."""


class Artifact(Message):
    """The artifact that serves, and what it is made of."""

    blob: Blob
    """Arrow IPC file of lora_core."""
    rank: Annotated[int, Field(ge=1, le=512), INTEGER]
    alpha: Annotated[float, Field(ge=0.001), NUMBER]
    target_modules: tuple[str, ...] = ()
    """Names of the adapted projections, for example q_proj."""


class Probe(Message):
    """The logits of the probe prompt's last position with the adapter: the proof that it has an effect."""

    prompt: str = ""
    top_ids: tuple[Int32, ...] = ()
    """The highest token ids of the adapted model, best first."""
    top_logits: tuple[Double, ...] = ()
    """Their logits."""
    max_delta: Double = 0.0
    """Largest absolute difference to the base model's logits over the vocabulary."""


class RoutingProfile(Message):
    """What a router recognises an adapter's queries by: vectors of its training prompts, none of their texts."""

    blob: Blob
    """safetensors: centroids, counts, spreads and held_out."""
    embedded_by: Annotated[str, Field(min_length=1, max_length=300)]
    """Embedding model that made the vectors, NAME@REVISION: those of another do not compare."""
    prompts: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0
    """Distinct prompts that it is made of."""


class Adapter(Message):
    """What every other service needs to know of a version."""

    adapter_id: Annotated[str, Field(min_length=1)]
    """domain-method-vX.Y.Z"""
    family: Annotated[str, Field(min_length=1)]
    """domain-method"""
    domain: Annotated[str, Field(min_length=1)]
    method: Method
    """How it was trained: lora, rslora, qlora or dora."""
    version: Annotated[str, Field(min_length=1)]
    base_model: BaseModel
    artifact: Artifact
    description: str = ""
    example_prompts: tuple[str, ...] = ()
    probe: Probe | None = None
    routing: RoutingProfile | None = None
    """Absent where it was not trained here: then only description and example prompts describe its purpose."""


class Rollout(Message):
    """How a candidate takes over from its family's active version."""

    rollout_id: Annotated[str, Field(min_length=1)]
    """Unique; with the family it salts the split of callers."""
    mode: DeliveryMode
    """at_once: no rollout. canary: the candidate answers a growing part of the callers. shadow: it answers beside the
 incumbent, shown to nobody. ab: it answers a fixed part of the callers until a difference is shown."""
    candidate_id: Annotated[str, Field(min_length=1)]
    """Approved version that is to take over."""
    incumbent_id: Annotated[str, Field(min_length=1)]
    """Active version that it is compared with."""
    step: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Number of the step, from 0."""
    share: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Part of the family's callers whose requests the candidate answers."""
    judge_share: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Part of its recorded answers that the judge scores; 0 where its rules do not name the metric `judge`."""


class Evidence(Message):
    """What a step of a rollout found for one metric."""

    metric: RolloutMetric
    """error_rate: requests without an answer. refusal_rate: requests that the adapter was not fit to answer, or answered
 with nothing. latency: answers slower than the policy's limit. rating: mean rating, 1 to 5. preference: comparisons
 that the candidate lost. judge: mean score of the judge, 0 to 100."""
    candidate_outcomes: Int64 = 0
    """Outcomes of the candidate."""
    incumbent_outcomes: Int64 = 0
    """Outcomes of the incumbent."""
    candidate: Double | None = None
    """Mean of the candidate's, in the metric's unit; absent without outcomes."""
    incumbent: Double | None = None
    """Mean of the incumbent's; for a preference one half."""
    ci_low: Double = 0.0
    """Interval of candidate minus incumbent that holds at every look."""
    ci_high: Double = 0.0
    log_evidence: Double = 0.0
    """Natural logarithm of the evidence that the candidate is worse by more than is tolerated."""
    line: Double = 0.0
    """Where that refutes "not worse"."""
    test: str = ""
    """Name of the test."""


class RolloutPart(Message):
    """The part that a request has in a rollout."""

    rollout_id: Annotated[str, Field(min_length=1)]
    step: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Step at which it was chosen."""
    arm: RolloutArm
    """Whether the candidate or the incumbent was to answer it."""
    shadow: Bool = False
    """The answer was shown to nobody: another one was."""
    judge_share: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Part of the rollout's recorded answers that the judge scores."""


class WeightedAdapter(Message):
    """One adapter of a set that answers together."""

    adapter_id: Annotated[str, Field(min_length=1)]
    artifact_sha256: Annotated[str, Field(min_length=1)]
    weight: Double = 0.0
    """Factor of what it adds."""


class Turn(Message):
    """One turn of a conversation."""

    role: Annotated[str, Field(min_length=1)]
    """system, user, assistant or tool."""
    content: str = ""


class Sampling(Message):
    """How the tokens of an answer were drawn."""

    temperature: Double = 0.0
    """0 is greedy."""
    top_p: Double = 0.0
    top_k: Int32 = 0
    """Only so many of the likeliest tokens; 0 is all of them."""
    min_p: Double = 0.0
    seed: Int64 | None = None
    max_tokens: Int32 = 0
    repetition_penalty: Double | None = None
    presence_penalty: Double = 0.0
    frequency_penalty: Double = 0.0
    stop: tuple[str, ...] = ()
    """Texts before the first of which the answer ends."""


class Consent(Message):
    """The policy under which an answer was recorded; where several domains took part, the strictest of theirs."""

    record_answers: RecordAnswers
    """Which answers may become data; of none no answer is recorded."""
    record_fraction: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Share of the requests, where it is sampled; else 0."""
    personal_data: PersonalDataAction
    """What happened to personal data."""
    revision: Int64 = 0
    """Revision of the policy of the answer's domain."""


class CriterionChange(Message):
    """How one criterion moved between two versions."""

    criterion: Annotated[str, Field(min_length=1)]
    difference: Double = 0.0
    """Mean of the paired differences, on the criterion's scale of 0 to 10."""
    chance: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """One-sided p-value of no fall, corrected over all criteria."""
    fell: Bool = False
    """Whether it fell significantly."""


class Comparison(Message):
    """A version against the one that it would replace, paired on the same samples: new minus old."""

    compared_with: Annotated[str, Field(min_length=1)]
    evaluation_id: Annotated[str, Field(min_length=1)]
    """The other version's evaluation."""
    samples: Annotated[int, Field(ge=2, le=2**31 - 1), INTEGER] = 0
    """Samples that both have a score for."""
    difference: Double = 0.0
    """Mean of the paired differences, in score points, with its confidence interval."""
    ci_low: Double = 0.0
    ci_high: Double = 0.0
    criteria: tuple[CriterionChange, ...] = ()


class Preference(Message):
    """A version beside the one that it would replace, answer by answer; each pair was judged in both orders."""

    compared_with: Annotated[str, Field(min_length=1)]
    evaluation_id: Annotated[str, Field(min_length=1)]
    """The other version's evaluation."""
    samples: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0
    """Pairs that got their verdicts."""
    wins: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Pairs that both orders decide the same way; every other one is a tie."""
    losses: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    ties: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    win_rate: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Ties count as half, 0 to 1; the interval counts pairs without verdicts as missing evidence."""
    ci_low: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    ci_high: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    consistency: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Fraction of the pairs with the same outcome in both orders."""
    position_bias: Annotated[float, Field(ge=-1.0, le=1.0), NUMBER] = 0.0
    """Verdicts for the first place less those for the second, by the number of verdicts."""


class Agreement(Message):
    """How far the judge agrees with people in this domain, over the answers that both have scored."""

    answers: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0
    alpha: Annotated[float, Field(le=1.0), NUMBER] = 0.0
    """Krippendorff's alpha, interval metric: 1 is the same scores, 0 what chance gives; with its 95 % interval."""
    ci_low: Annotated[float, Field(le=1.0), NUMBER] = 0.0
    ci_high: Annotated[float, Field(le=1.0), NUMBER] = 0.0


class Metric(Message):
    """Mean of a metric over the samples that it was measured on, 0 to 1, with its interval at the score's confidence."""

    name: Annotated[str, Field(min_length=1)]
    value: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    ci_low: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    ci_high: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    samples: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0


class JudgedBy(Message):
    """Who judged, and how it was called. Empty where a value does not apply."""

    name: str = ""
    """Of the evaluator's settings; `reference-judge` for the reference judge."""
    version: str = ""
    model: str = ""
    """Language model that was called."""
    prompt_sha256: str = ""
    """Digest of the parts of every request other than the sample."""
    parameters: dict[str, str] = Field(default_factory=dict)


class GoldenPrint(Message):
    """The print of a golden prompt: enough to find it elsewhere, and not enough to read it."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the prompt's exact form: NFC, lower case, each run of white space one space."""
    signature: Annotated[str, Field(max_length=4096)] = ""
    """MinHash of its shingles by the event's scheme: 32-bit values, little endian, base64."""


class Hyperparameters(Message):
    """What to train with. Unset values take the trainer's defaults; all are validated together before the job starts."""

    rank: Annotated[int, Field(ge=1, le=256), INTEGER] | None = None
    alpha: Annotated[float, Field(ge=0.001, le=1024.0), NUMBER] | None = None
    dropout: Annotated[float, Field(ge=0.0, le=0.9), NUMBER] | None = None
    learning_rate: Annotated[float, Field(ge=1e-07, le=0.1), NUMBER] | None = None
    epochs: Annotated[float, Field(ge=0.01, le=100.0), NUMBER] | None = None
    max_steps: Annotated[int, Field(ge=1, le=10000000), INTEGER] | None = None
    """Stops after this many optimizer steps, regardless of epochs."""
    batch_size: Annotated[int, Field(ge=1, le=1024), INTEGER] | None = None
    max_length: Annotated[int, Field(ge=8, le=131072), INTEGER] | None = None
    """Longest sample in tokens. A longer one is counted and left out, never cut in silence."""
    seed: Annotated[int, Field(ge=0, le=2147483647), INTEGER] | None = None
    warmup_ratio: Annotated[float, Field(ge=0.0, le=0.5), NUMBER] | None = None
    """Part of the steps in which the learning rate rises."""
    scheduler: Scheduler | None = None
    """Course of the learning rate: constant, linear or cosine."""
    target_modules: Annotated[
        tuple[Annotated[str, Field(pattern="^[A-Za-z0-9_]{1,100}$")], ...], Field(max_length=64)
    ] = ()
    """Projections to adapt; empty means all linear layers of the decoder blocks."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=10000000), INTEGER] | None = None
    """Optimizer steps between two checkpoints; unset means one per epoch."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=100), INTEGER] | None = None
    """Newest checkpoints kept; the one with the best validation loss is kept beside them."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] | None = None
    max_gradient_norm: Annotated[float, Field(ge=0.001, le=1000.0), NUMBER] | None = None
    """Gradients are scaled down to this norm."""
    validation_part: Annotated[float, Field(ge=0.0, le=0.5), NUMBER] | None = None
    """Part of the prompts held out to validate with where the data set has no validation split of its own; unset holds out none."""
    validation_steps: Annotated[int, Field(ge=1, le=10000000), INTEGER] | None = None
    """Optimizer steps between two validations; unset means one per epoch."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000), INTEGER] | None = None
    """Validations in a row without a better loss after which training ends; unset trains to the end."""
    beta: Annotated[float, Field(ge=0.001, le=100.0), NUMBER] | None = None
    """dpo: how strongly the adapter is held to what it began from."""
    preference_loss: PreferenceLoss | None = None
    """dpo: sigmoid (also when unset), hinge, ipo, robust, exo_pair, nca_pair, apo_zero, apo_down or sigmoid+sft."""
    label_smoothing: Annotated[float, Field(ge=0.0, le=0.49), NUMBER] | None = None
    """dpo: part of the preferences that are taken to be the wrong way round."""
    ranking_loss: RankingLoss | None = None
    """ranking: margin (also when unset), rrhf or listwise."""
    ranking_margin: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] | None = None
    """ranking: how much more likely, in nats per token, a completion must be than the next worse one."""
    processes: Annotated[int, Field(ge=1, le=64), INTEGER] | None = None
    """Processes that share each batch; the batch size stays that of the whole."""
    layers: Annotated[int, Field(ge=1, le=1024), INTEGER] | None = None
    """Decoder layers to adapt, counted from the last; unset means all. No gradient is computed below them."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1024), INTEGER] | None = None
    """Records of a batch that a process computes at once; unset means all. The gradients of the parts add up to the
 batch's own, so that less memory is needed for the same step."""
    gradient_checkpointing: Bool | None = None
    """Compute activations again in the backward pass instead of keeping them, for less memory; unset keeps them."""


class Export(Message):
    """A further form of a finished adapter, and whether it is still good enough on the validation split."""

    kind: ExportKind
    """gguf, gguf-q8_0, gguf-q6_k, gguf-q4_k_m, int8 or int4."""
    blob: Blob
    same_token: Double | None = None
    """Share of validation positions at which it prefers the same token as the adapter itself."""
    validation_loss: Double | None = None
    quality_threshold: Double | None = None
    """What its quantisation profile requires of same_token."""
    fit: Bool = False
    """Whether it meets that; a form that loses nothing always does."""


class ApiKeyCreated(Event):
    """An API key was made. The key itself is nowhere but with who made it."""

    type_name: ClassVar[str] = "lorafleet.events.v1.ApiKeyCreated"

    key_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    secret_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the key's secret, lower-case hex."""
    scopes: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    """What may be done with it."""
    domains: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Where: exact names, or "*" alone for every domain."""
    expires_at: Timestamp
    by: Annotated[str, Field(min_length=1)]
    """Subject of the token that made it."""


class ApiKeyRevoked(Event):
    """An API key is good no more."""

    type_name: ClassVar[str] = "lorafleet.events.v1.ApiKeyRevoked"

    key_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""


class TokenRevoked(Event):
    """Tokens are good no more, before their end."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TokenRevoked"

    named_by: NamedBy
    """jti: the token of this id. subject: the tokens of this subject that were issued up to `revoked_at`."""
    value: Annotated[str, Field(min_length=1, max_length=300)]
    revoked_at: Timestamp
    until: Timestamp
    """When the longest of them has ended by itself."""
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""


class ApiKeysUsed(Event):
    """The API keys that a process was called with since it last reported, at most once a minute."""

    type_name: ClassVar[str] = "lorafleet.events.v1.ApiKeysUsed"

    uses: Annotated[tuple[ApiKeyUse, ...], Field(max_length=1000)] = ()


class AdapterRegistered(Event):
    """A version exists and waits for its judgement."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterRegistered"

    adapter: Adapter
    revision: Int64 = 0
    """Counts the family's changes; what is older than what you hold is ignored."""
    job_id: str = ""
    golden_dataset_id: str = ""


class Approved(Event):
    """The version may serve."""

    type_name: ClassVar[str] = "lorafleet.events.v1.Approved"

    adapter_id: Annotated[str, Field(min_length=1)]
    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    artifact_sha256: Annotated[str, Field(min_length=1)]
    """Digest that was judged and approved."""
    revision: Int64 = 0
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""
    score: Double | None = None
    evaluation_id: str = ""
    without_evaluation: Bool = False
    """A human approved a version that was never evaluated, where the domain's policy permits it; `reason` has why."""


class Rejected(Event):
    """The version must not serve."""

    type_name: ClassVar[str] = "lorafleet.events.v1.Rejected"

    adapter_id: Annotated[str, Field(min_length=1)]
    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""
    score: Double | None = None
    evaluation_id: str = ""


class ReviewRequested(Event):
    """A human has to decide."""

    type_name: ClassVar[str] = "lorafleet.events.v1.ReviewRequested"

    adapter_id: Annotated[str, Field(min_length=1)]
    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    reason: str = ""
    score: Double | None = None
    evaluation_id: str = ""


class AdapterActivated(Event):
    """The version is its family's answer from now on."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterActivated"

    adapter: Adapter
    revision: Int64 = 0
    by: str = ""
    reason: str = ""
    replaces: str = ""
    """Version that it takes over from, if any."""
    rollout_id: str = ""
    """Rollout that ends with this activation, if any."""
    evidence: tuple[Evidence, ...] = ()
    """What that rollout's last step found."""


class AdapterDeactivated(Event):
    """The version takes no new requests."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterDeactivated"

    adapter_id: Annotated[str, Field(min_length=1)]
    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    by: str = ""
    reason: str = ""
    replaced_by: str = ""
    """Version that takes over, if any."""


class AdapterRolledBack(Event):
    """A family went back to an earlier version."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterRolledBack"

    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    from_adapter_id: Annotated[str, Field(min_length=1)]
    to_adapter_id: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    by: str = ""
    reason: str = ""


class AdapterReleased(Event):
    """The files of a version may be deleted: it is never approved, activated or trained further again. Only its entries
    and digests stay."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterReleased"

    adapter_id: Annotated[str, Field(min_length=1)]
    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    job_id: str = ""
    """The training that made it; empty for an upload."""
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""


class AdapterHeld(Event):
    """Somebody keeps a version from being released, or no longer does. For operators and systems beside the fleet: the registry
    itself releases nothing that is held, and every other service deletes only after AdapterReleased."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterHeld"

    adapter_id: Annotated[str, Field(min_length=1)]
    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    held: Bool = False
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""


class PolicyChanged(Event):
    """A domain's policy was set: what other services need to know of it."""

    type_name: ClassVar[str] = "lorafleet.events.v1.PolicyChanged"

    domain: DomainName
    revision: Annotated[int, Field(ge=1, le=2**63 - 1), INTEGER, QUOTED]
    """Counts the changes of this domain's policy, from 1; what is older than what you hold is ignored."""
    by: Annotated[str, Field(min_length=1)]
    record_answers: RecordAnswers
    """Which answers of the domain may become data. none: no answer. rated: an answer that gets feedback. sampled: the
 share `record_fraction` of all requests. all: every answer."""
    record_fraction: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Share of the requests whose answers are recorded where `record_answers` is sampled; else 0."""
    personal_data: PersonalDataAction
    """What happens to personal data that has a form (e-mail addresses, telephone, account and card numbers, IP addresses)
 before an answer is recorded. mask: it is replaced by its kind. drop: the answer is not recorded."""


class UpdateRecommended(Event):
    """A compatible version is significantly better than its family's active one. Published once for each two versions."""

    type_name: ClassVar[str] = "lorafleet.events.v1.UpdateRecommended"

    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    running: Annotated[str, Field(min_length=1)]
    """Version that is active."""
    available: Annotated[str, Field(min_length=1)]
    """Version that is recommended in its place."""
    difference: Double = 0.0
    """Mean of the paired differences, in score points, with its confidence interval, which lies above 0."""
    ci_low: Double = 0.0
    ci_high: Double = 0.0
    improvement: Double = 0.0
    """The difference in per cent of the active version's score."""
    samples: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Samples that both have a score for."""
    reason: str = ""
    applied: Bool = False
    """Whether the domain's policy activates it at once."""


class CanaryStarted(Event):
    """A candidate begins to take over from its family's active version."""

    type_name: ClassVar[str] = "lorafleet.events.v1.CanaryStarted"

    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    """Counts the family's changes; what is older than what you hold is ignored."""
    rollout: Rollout
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""


class CanaryAdvanced(Event):
    """A rollout is at its next step, or is paused or resumed at this one. It is completed by AdapterActivated."""

    type_name: ClassVar[str] = "lorafleet.events.v1.CanaryAdvanced"

    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    rollout: Rollout
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()
    """What the step before found."""
    paused: Bool = False
    """It keeps its step until a human resumes it, and still goes back by itself."""


class CanaryRolledBack(Event):
    """A rollout ended without its candidate, which stays approved and not active: the incumbent answers alone."""

    type_name: ClassVar[str] = "lorafleet.events.v1.CanaryRolledBack"

    family: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Int64 = 0
    rollout: Rollout
    by: Annotated[str, Field(min_length=1)]
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()


class GenerationCompleted(Event):
    """An answer was given."""

    type_name: ClassVar[str] = "lorafleet.events.v1.GenerationCompleted"

    generation_id: Annotated[str, Field(min_length=1)]
    requested_model: str = ""
    """The requested model: base model, adapter, family or auto."""
    adapter_id: str = ""
    """Adapter that answered; empty is the base model."""
    domain: str = ""
    artifact_sha256: str = ""
    """Digest of the artifact that answered."""
    base_model: Annotated[str, Field(min_length=1)]
    prompt_tokens: Int32 = 0
    completion_tokens: Int32 = 0
    latency_ms: Double = 0.0
    finish_reason: str = ""
    """stop, length or cancelled."""
    routed: str = ""
    """Why auto chose it, or why it did not."""
    caller: str = ""
    replica: str = ""
    mix: tuple[WeightedAdapter, ...] = ()
    """The adapters of a weighted set that answered together; adapter_id is then the one of the largest weight."""
    fallback: str = ""
    """Why another model answered than the requested one, where a fallback was allowed; else empty."""
    base_model_revision: str = ""
    """Digest of the base model's files."""
    rollout: RolloutPart | None = None
    """Its part in a rollout, if it has one."""


class GenerationFailed(Event):
    """A request that has a part in a rollout got no answer from the version that it was given to."""

    type_name: ClassVar[str] = "lorafleet.events.v1.GenerationFailed"

    generation_id: Annotated[str, Field(min_length=1)]
    requested_model: str = ""
    """The requested model: a family or auto."""
    adapter_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    artifact_sha256: str = ""
    base_model: str = ""
    rollout: RolloutPart
    failure: Failure
    """refused: the adapter failed its checks, so that it has no proven effect. busy: it was not loaded or had no room in
 time. fault: the engine failed."""
    code: str = ""
    """Code of the error, as the caller got it."""
    caller: str = ""
    replica: str = ""


class AdapterLoaded(Event):
    """A replica holds an adapter and has proved its effect."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterLoaded"

    adapter_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    artifact_sha256: Annotated[str, Field(min_length=1)]
    replica: Annotated[str, Field(min_length=1)]
    load_ms: Double = 0.0
    modules_bound: Int32 = 0
    max_delta: Double = 0.0
    """Largest absolute change of the probe prompt's logits."""


class AdapterUnloaded(Event):
    """A replica holds an adapter no longer."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AdapterUnloaded"

    adapter_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    artifact_sha256: str = ""
    replica: Annotated[str, Field(min_length=1)]
    reason: str = ""


class SampleRecorded(Event):
    """One prompt and the completion that is wanted for it."""

    type_name: ClassVar[str] = "lorafleet.events.v1.SampleRecorded"

    sample_id: Annotated[str, Field(max_length=200)] = ""
    """Chosen by the recorder; empty derives it from the content."""
    domain: DomainName
    prompt: Annotated[str, Field(min_length=1)]
    completion: Annotated[str, Field(min_length=1)]
    rating: Annotated[float, Field(ge=0.0, le=5.0), NUMBER] | None = None
    """0 to 5 where it was rated."""
    origin: str = ""
    """Where it comes from."""
    subject: Annotated[str, Field(max_length=512)] = ""
    """Person whom the sample is about, as the sender names them: `lorafleet data forget` finds it by this."""


class PreferenceRecorded(Event):
    """Of two completions of one prompt, the one that was preferred."""

    type_name: ClassVar[str] = "lorafleet.events.v1.PreferenceRecorded"

    preference_id: Annotated[str, Field(max_length=200)] = ""
    domain: DomainName
    prompt: Annotated[str, Field(min_length=1)]
    chosen: Annotated[str, Field(min_length=1)]
    rejected: Annotated[str, Field(min_length=1)]
    origin: str = ""
    subject: Annotated[str, Field(max_length=512)] = ""
    """Person whom it is about, as the sender names them."""


class FeedbackRecorded(Event):
    """What a person thinks of an answer: its rating, what would have been right, another answer that it is better than."""

    type_name: ClassVar[str] = "lorafleet.events.v1.FeedbackRecorded"

    generation_id: Annotated[str, Field(min_length=1)]
    """Id of the answer, as the response gave it."""
    adapter_id: str = ""
    """Adapter that answered; empty is the base model."""
    domain: Annotated[str, Field(pattern="^(?:|[a-z0-9][a-z0-9-]{0,62})$")] = ""
    """Domain of that adapter; empty for the base model."""
    rating: Annotated[int, Field(ge=1, le=5), INTEGER] = 0
    """1 (bad) to 5 (good)."""
    comment: Annotated[str, Field(max_length=4000)] = ""
    by: str = ""
    prompt: str = ""
    """The rated exchange itself, where the sender has it: with both, the answer becomes a rated sample of the domain."""
    completion: str = ""
    correction: Annotated[str, Field(max_length=50000)] = ""
    """The answer that would have been right."""
    preferred_over: Annotated[str, Field(max_length=500)] = ""
    """Generation id of another answer to the same prompt that this one is better than."""
    subject: Annotated[str, Field(max_length=512)] = ""
    """Person whom the feedback is about and by, as the application names its users; empty where `by` is all that is known."""
    routed_wrongly: Bool = False
    """Whether another adapter, or none, was to answer what `auto` routed."""
    right_family: Annotated[str, Field(max_length=200)] = ""
    """The family that was to answer; empty with routed_wrongly is no adapter of the answer's domain."""


class GenerationRecorded(Event):
    """An answer that may become training data: its domain's policy permitted it to be recorded. Personal data that has a
    form is masked in it, or it is not recorded, as the policy has it."""

    type_name: ClassVar[str] = "lorafleet.events.v1.GenerationRecorded"

    generation_id: Annotated[str, Field(min_length=1)]
    domain: DomainName
    """Domain whose data it is: that of the adapter, or of the model that was requested where the base model answered."""
    requested_model: str = ""
    adapter_id: str = ""
    """Adapter that answered; empty is the base model."""
    artifact_sha256: str = ""
    """Digest of the artifact that answered."""
    mix: tuple[WeightedAdapter, ...] = ()
    """The adapters of a weighted set that answered together; adapter_id is then the one of the largest weight."""
    base_model: BaseModel
    sampling: Sampling
    routed: str = ""
    """Why auto chose the adapter."""
    fallback: str = ""
    """Why another model answered than the requested one, where a fallback was allowed; else empty."""
    messages: tuple[Turn, ...] = ()
    """The prompt: system message, earlier turns and question, oldest first. Empty where `content` has it."""
    answer: str = ""
    """Empty where `content` has it."""
    content: Blob | None = None
    """JSON {"generation_id", "messages": [{"role", "content"}], "answer"}, where that is too large for the bus."""
    finish_reason: str = ""
    """stop or length."""
    consent: Consent
    masked: tuple[str, ...] = ()
    """Kinds of personal data that were masked."""
    subject: Annotated[str, Field(max_length=512)] = ""
    """Person whom the exchange is about, as the application names its users (the request's `user` or
 `safety_identifier`)."""
    caller: str = ""
    """Who asked, as the access token names them."""
    comparison_id: Annotated[str, Field(max_length=1500)] = ""
    """The request's answers that were given side by side have one; empty for a single answer."""
    answered_at: Timestamp | None = None
    """When it was given, which may be long before feedback let it be recorded."""
    rollout: RolloutPart | None = None
    """Its part in a rollout, if it has one."""


class DatasetQueued(Event):
    """A recipe waits to be built by one of the trainer's workers."""

    type_name: ClassVar[str] = "lorafleet.events.v1.DatasetQueued"

    build_id: Annotated[str, Field(min_length=1)]
    domain: DomainName


class DatasetFrozen(Event):
    """A data set has a new version: a recipe was built, or a job froze the live samples."""

    type_name: ClassVar[str] = "lorafleet.events.v1.DatasetFrozen"

    domain: DomainName
    name: Annotated[str, Field(min_length=1)]
    """Name within the domain; `live` where it has none."""
    version: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER]
    """Counts up from 1 within domain and name."""
    dataset: Dataset
    build_id: str = ""
    """The build that made it; empty where a job did."""


class ErasureQueued(Event):
    """A person's records wait to be erased by one of the trainer's workers."""

    type_name: ClassVar[str] = "lorafleet.events.v1.ErasureQueued"

    erasure_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    """"*" is every domain."""


class SubjectForgotten(Event):
    """The trainer has erased a person's records: every service erases what it holds of these ids. It never names the person."""

    type_name: ClassVar[str] = "lorafleet.events.v1.SubjectForgotten"

    erasure_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    """"*" is every domain."""
    subject_digest: Annotated[str, Field(min_length=1)]
    """Keyed digest of the person's name; the key never leaves the trainer."""
    generation_ids: tuple[str, ...] = ()
    """Answers and feedback of the person; of many ids a part of them."""
    adapter_ids: tuple[str, ...] = ()
    """Versions that learned from the person's records, in the first part alone."""
    retire: Bool = False
    """Whether these versions are to be rejected."""
    part: Int32 = 0
    """Counts from 1 to `parts`; 0 where a record arrived after the erasure."""
    parts: Int32 = 0
    by: Annotated[str, Field(min_length=1)]
    retire_when_replaced: Bool = False
    """Whether these versions are to be rejected once a version of their family is active that did not learn from the
 records."""


class SubjectErased(Event):
    """A service has erased what it held of a forgotten person."""

    type_name: ClassVar[str] = "lorafleet.events.v1.SubjectErased"

    erasure_id: Annotated[str, Field(min_length=1)]
    service: Annotated[str, Field(min_length=1)]
    deleted: Int64 = 0
    """Rows that were deleted for this part."""
    part: Int32 = 0


class EvaluationRequested(Event):
    """Judge a version (again)."""

    type_name: ClassVar[str] = "lorafleet.events.v1.EvaluationRequested"

    evaluation_id: Annotated[str, Field(pattern="^(?:|[A-Za-z0-9][A-Za-z0-9._:-]{0,99})$")] = ""
    """Chosen by the requester; empty takes the event's id."""
    adapter_id: Annotated[str, Field(min_length=1)]
    domain: DomainName
    golden_dataset_id: str = ""
    """Empty takes the domain's newest."""
    requested_by: str = ""


class EvaluationScored(Event):
    """What the judge found."""

    type_name: ClassVar[str] = "lorafleet.events.v1.EvaluationScored"

    evaluation_id: Annotated[str, Field(min_length=1)]
    adapter_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    artifact_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the artifact that answered."""
    golden_dataset_id: Annotated[str, Field(min_length=1)]
    golden_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    judge: Annotated[str, Field(min_length=1)]
    """Name and version of the judge."""
    score: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] = 0.0
    """Mean over the samples, 0 to 100, with its confidence interval."""
    ci_low: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] = 0.0
    ci_high: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] = 0.0
    confidence: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Confidence level of the interval, for example 0.95."""
    pass_rate: Annotated[float, Field(ge=0.0, le=1.0), NUMBER] = 0.0
    """Part of the samples at or above the pass threshold, 0 to 1."""
    pass_threshold: Double = 0.0
    samples: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0
    passed: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    criteria: dict[str, Double] = Field(default_factory=dict)
    """Mean of each criterion, 0 to 10."""
    report: Blob
    """Every sample with its answer, scores and reasons."""
    regression: Bool = False
    """True when it, or one of its criteria, is significantly worse than the version it would replace."""
    comparison: Comparison | None = None
    """Against the version it would replace; absent where there is none, or none could be judged."""
    decided: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] | None = None
    """Samples that have a score, of `samples`; absent is all of them. The interval counts the others as missing evidence."""
    submission: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Which of the family's tries at this golden data set it is since a version was activated, from 1; widens the interval."""
    cut_answers: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Answers that reached the longest allowed length and were cut."""
    undecided: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Those without a score: undecided by the judge, and without a verdict."""
    unjudged: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    judged_by: JudgedBy | None = None
    preference: Preference | None = None
    """Answers beside those of the version it would replace; absent where the judge compares no pairs."""
    agreement: Agreement | None = None
    """Absent where too few answers are labelled."""
    metrics: tuple[Metric, ...] = ()
    """`golden_dataset_accuracy` (the fraction of passed samples), and what the evaluator's settings name."""
    scores: Blob | None = None
    """The decided samples' scores by sample id, JSON, without any text: what two versions are compared on."""
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1), INTEGER] = 0
    """Longest answer that was allowed, in tokens. Scores under another one do not compare."""
    golden_version: str = ""
    """Version of the golden data set."""
    not_compared: str = ""
    """Why it is not compared with the version it would replace; empty where it is, or there is none."""


class EvaluationFailed(Event):
    """No score could be made."""

    type_name: ClassVar[str] = "lorafleet.events.v1.EvaluationFailed"

    evaluation_id: Annotated[str, Field(min_length=1)]
    adapter_id: Annotated[str, Field(min_length=1)]
    domain: str = ""
    reason: Annotated[str, Field(min_length=1)]


class RegressionDetected(Event):
    """A version is significantly worse than another on the same golden samples."""

    type_name: ClassVar[str] = "lorafleet.events.v1.RegressionDetected"

    evaluation_id: Annotated[str, Field(min_length=1)]
    adapter_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    compared_with: Annotated[str, Field(min_length=1)]
    difference: Double = 0.0
    """Mean of the paired differences, in score points, with its confidence interval."""
    ci_low: Double = 0.0
    ci_high: Double = 0.0
    criteria: tuple[str, ...] = ()
    """Criteria that fell significantly."""


class GoldenDatasetPublished(Event):
    """A golden data set version was stored or changed: it must not be trained on. The prompts stay with the evaluator."""

    type_name: ClassVar[str] = "lorafleet.events.v1.GoldenDatasetPublished"

    dataset_id: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    revision: Annotated[int, Field(ge=1, le=2**63 - 1), INTEGER, QUOTED] = 0
    """Grows with each change of an open version; its prints take the place of those of lower revisions."""
    part: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0
    """This event's place among those that hold the revision together, from 1, and how many those are."""
    parts: Annotated[int, Field(ge=1, le=2**31 - 1), INTEGER] = 0
    scheme: Annotated[str, Field(min_length=1)]
    """How the signatures were made. Those of another scheme cannot be compared; digests always can."""
    prints: tuple[GoldenPrint, ...] = ()


class AnswerJudged(Event):
    """The judge looked at a live answer of a rollout, which belongs to the sample that it scores."""

    type_name: ClassVar[str] = "lorafleet.events.v1.AnswerJudged"

    generation_id: Annotated[str, Field(min_length=1)]
    adapter_id: Annotated[str, Field(min_length=1)]
    """Adapter that answered."""
    domain: Annotated[str, Field(min_length=1)]
    rollout: RolloutPart
    score: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] | None = None
    """0 to 100; absent where there is none."""
    why: str = ""
    """Why there is no score."""
    judge: str = ""
    """Name and version of the judge; empty where the domain has none that can judge without a reference answer."""


class TrainingRequested(Event):
    """Train an adapter and take it all the way: register, evaluate, approve, activate."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingRequested"

    job_id: Annotated[str, Field(pattern="^(?:|[A-Za-z0-9][A-Za-z0-9._:-]{0,99})$")] = ""
    """Chosen by the requester; empty takes the event's id, with a print of its source where that has a name of its own."""
    domain: DomainName
    """Domain and tenancy boundary, first half of the adapter family."""
    method: Annotated[Method | Literal[""], OrEmpty(Method)] = ""
    """lora (also when empty), rslora, qlora or dora."""
    query: Annotated[str, Field(max_length=1000)] = ""
    """Full-text query that selects the domain's recorded samples; empty takes all of them."""
    dataset_id: Annotated[str, Field(max_length=200)] = ""
    """An existing data set instead of a query."""
    min_rating: Annotated[float, Field(ge=0.0, le=5.0), NUMBER] | None = None
    """Only samples rated at least so; unrated ones count as fit."""
    golden_dataset_id: Annotated[str, Field(max_length=200)] = ""
    """Golden data set to judge with; empty takes the domain's newest."""
    hyperparameters: Hyperparameters | None = None
    version: Annotated[str, Field(pattern="^(?:|[0-9]+\\.[0-9]+\\.[0-9]+)$", max_length=32)] = ""
    """Exact SemVer to register as; empty lets the registry compute it."""
    bump: Annotated[Bump | Literal[""], OrEmpty(Bump)] = ""
    """Which part to raise when the registry computes the version: patch (also when empty), minor or major."""
    auto_approve_threshold: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] | None = None
    """Score from which this adapter is approved without a human; unset takes the domain's policy."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What the adapter is for: the router matches queries against it."""
    requested_by: Annotated[str, Field(max_length=1000)] = ""
    """The requester; set by the service when it comes over HTTP."""
    base_model: Annotated[str, Field(max_length=200)] = ""
    """Base model by name; empty takes the trainer's."""
    objective: Annotated[Objective | Literal[""], OrEmpty(Objective)] = ""
    """What the adapter learns from: sft (completions; also when empty), dpo (preferences) or ranking."""
    continue_from: Annotated[str, Field(max_length=200)] = ""
    """Adapter to train further, by its id or by the id of the job that made it; empty begins a new one."""
    priority: Annotated[int, Field(ge=0, le=9), INTEGER] = 0
    """Of two waiting jobs the one of higher priority goes first."""
    exports: Annotated[tuple[ExportKind, ...], Field(max_length=6)] = ()
    """Further forms of the finished adapter: gguf (its own numbers, for llama.cpp), gguf-q8_0, gguf-q6_k and gguf-q4_k_m
 (rounded to llama.cpp's levels), int8 and int4 (Arrow)."""
    reason: Annotated[str, Field(max_length=2000)] = ""
    """Why it is trained, where a retraining rule of the domain or a migration asks for it; shown with the job and the
 adapter."""
    triggers: Annotated[tuple[RetrainingTrigger, ...], Field(max_length=6)] = ()
    """What a retraining rule reacted to, or a policy that follows the base model; empty for a person's or another system's
 request."""
    distil_from: Annotated[str, Field(max_length=200)] = ""
    """Adapter whose answers take the place of those of the data set that `dataset_id` names. It has to be served."""


class TrainingQueued(Event):
    """A job waits for a worker: its request is valid as a whole, or it was resumed. For the trainer's workers each such event
    is a ticket: who receives one trains the best job that waits, which need not be this one."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingQueued"

    job_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    priority: Int32 = 0


class TrainingPaused(Event):
    """A job was paused by request; it resumes from its newest checkpoint."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingPaused"

    job_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    by: str = ""
    reason: str = ""
    step: Int32 = 0


class TrainingStarted(Event):
    """A worker has begun (or taken up) a job."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingStarted"

    job_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    dataset: Dataset
    base_model: BaseModel
    total_steps: Int32 = 0
    attempt: Int32 = 0
    """1 at first, more after a worker was lost."""
    resumed_step: Int32 = 0
    """Step that a checkpoint lets it begin from."""


class TrainingProgressed(Event):
    """Progress of a running job; at most a few per minute."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingProgressed"

    job_id: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, Field(min_length=1)]
    step: Int32 = 0
    total_steps: Int32 = 0
    loss: Double = 0.0
    learning_rate: Double = 0.0
    gradient_norm: Double = 0.0
    tokens_per_second: Double = 0.0
    validation_loss: Double | None = None
    """Loss on the validation split, where one was measured since the last such event."""
    peak_memory_bytes: Int64 = 0
    """Memory of the training process at its highest."""


class TrainingCompleted(Event):
    """A finished adapter with the whole chain of digests it comes from."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingCompleted"

    job_id: Annotated[str, Field(min_length=1)]
    domain: DomainName
    method: Method
    """lora, rslora, qlora or dora."""
    base_model: BaseModel
    dataset: Dataset
    configuration: Annotated[str, Field(min_length=1)]
    """Full configuration as canonical JSON, and its digest."""
    configuration_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    checkpoint: Blob
    """adapter_model.safetensors of the final PEFT checkpoint."""
    checkpoint_config: Blob
    """adapter_config.json beside it."""
    artifact: Artifact
    report: Blob
    """Training report, JSON."""
    metrics: dict[str, Double] = Field(default_factory=dict)
    """Final numbers, for example train_loss, seconds, steps."""
    probe: Probe | None = None
    description: str = ""
    example_prompts: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """A few training prompts, for the router."""
    golden_dataset_id: str = ""
    version: Annotated[str, Field(pattern="^(?:|[0-9]+\\.[0-9]+\\.[0-9]+)$")] = ""
    bump: Annotated[Bump | Literal[""], OrEmpty(Bump)] = ""
    auto_approve_threshold: Annotated[float, Field(ge=0.0, le=100.0), NUMBER] | None = None
    requested_by: str = ""
    finished_at: Timestamp | None = None
    objective: Annotated[Objective | Literal[""], OrEmpty(Objective)] = ""
    """sft, dpo or ranking."""
    continued_from: str = ""
    """Adapter or job that this one continues."""
    report_page: Blob | None = None
    """The same report as a page for people, and the model card."""
    model_card: Blob | None = None
    exports: tuple[Export, ...] = ()
    adapter_type: Annotated[str, Field(max_length=100)] = ""
    """What kind of adapter its data was prepared for, for example intent-classifier; empty where its data has none."""
    routing: RoutingProfile | None = None
    reason: Annotated[str, Field(max_length=2000)] = ""
    """Why it was trained, as the request gave it."""


class TrainingFailed(Event):
    """A job that cannot succeed, with everything that is wrong with it."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingFailed"

    job_id: Annotated[str, Field(min_length=1)]
    domain: str = ""
    reason: Annotated[str, Field(min_length=1)]
    attempt: Int32 = 0


class TrainingCancelled(Event):
    """A job ended by request."""

    type_name: ClassVar[str] = "lorafleet.events.v1.TrainingCancelled"

    job_id: Annotated[str, Field(min_length=1)]
    domain: str = ""
    by: str = ""
    reason: str = ""


EVENTS: tuple[type[Event], ...] = (
    AdapterActivated,
    AdapterDeactivated,
    AdapterHeld,
    AdapterLoaded,
    AdapterRegistered,
    AdapterReleased,
    AdapterRolledBack,
    AdapterUnloaded,
    AnswerJudged,
    ApiKeyCreated,
    ApiKeyRevoked,
    ApiKeysUsed,
    Approved,
    CanaryAdvanced,
    CanaryRolledBack,
    CanaryStarted,
    DatasetFrozen,
    DatasetQueued,
    ErasureQueued,
    EvaluationFailed,
    EvaluationRequested,
    EvaluationScored,
    FeedbackRecorded,
    GenerationCompleted,
    GenerationFailed,
    GenerationRecorded,
    GoldenDatasetPublished,
    PolicyChanged,
    PreferenceRecorded,
    RegressionDetected,
    Rejected,
    ReviewRequested,
    SampleRecorded,
    SubjectErased,
    SubjectForgotten,
    TokenRevoked,
    TrainingCancelled,
    TrainingCompleted,
    TrainingFailed,
    TrainingPaused,
    TrainingProgressed,
    TrainingQueued,
    TrainingRequested,
    TrainingStarted,
    UpdateRecommended,
)
