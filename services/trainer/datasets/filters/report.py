"""What filters did to a stream of records: how many they dropped, why, and a few of those to look at."""

from pydantic import BaseModel, Field

MAX_REASONS = 200
_SHOWN = 500


class Dropped(BaseModel):
    """A record that a filter dropped, shortened to what a person needs to judge the filter."""

    id: str
    reason: str
    """Names the value that was found and the bound that it breaks."""
    prompt: str
    completion: str


class FilterCount(BaseModel):
    """What one filter did."""

    dropped: int = 0
    changed: int = 0
    """Records that were kept with a part of their text masked."""
    uncertain: int = 0
    """Records that were kept because the filter could not decide."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """How many records were dropped for which kind of reason."""
    samples: list[Dropped] = Field(default_factory=list)


class FilterReport(BaseModel):
    """Counts over a whole stream. `received` is the sum of `kept` and of what each filter dropped."""

    received: int = 0
    kept: int = 0
    filters: dict[str, FilterCount] = Field(default_factory=dict)
    golden: dict[str, int] = Field(default_factory=dict)
    """Golden data sets as `id@version` that were held against the records, and how many records overlap each."""

    def of(self, name: str) -> FilterCount:
        """The count of a filter, made at first use."""
        return self.filters.setdefault(name, FilterCount())

    def count(self, name: str, kind: str, records: int = 1) -> None:
        """Records that filter `name` dropped for one kind of reason; beyond `MAX_REASONS` kinds they are `others`."""
        counted = self.of(name)
        counted.dropped += records
        known = kind in counted.reasons or len(counted.reasons) < MAX_REASONS
        reason = kind if known else "others"
        counted.reasons[reason] = counted.reasons.get(reason, 0) + records

    def show(self, name: str, dropped: Dropped) -> None:
        """Keep a dropped record as a sample."""
        short = {"prompt": dropped.prompt[:_SHOWN], "completion": dropped.completion[:_SHOWN]}
        self.of(name).samples.append(dropped.model_copy(update=short))
