"""The setting `quotas`: who may take how much."""

from collections.abc import Iterator
from hashlib import blake2b

from pydantic import BaseModel, ConfigDict, Field

EACH_OTHER = "*"


class Amounts(BaseModel):
    """At most so many within one period; None is no limit. `requests` are answers, of several to one request the first
    alone; tokens are counted when an answer ends, so those under way may exceed the limit by what they still take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int | None = Field(default=None, ge=0)
    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)


class Quota(BaseModel):
    """What one domain or caller may take in a minute (of the clock) and in a month (of UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minute: Amounts = Amounts()
    month: Amounts = Amounts()


class Quotas(BaseModel):
    """By domain of the adapter that answers, and by the subject of the caller's token or API key. `*` is each one that
    is not named, with an amount of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domains: dict[str, Quota] = Field(default_factory=dict)
    callers: dict[str, Quota] = Field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.domains or self.callers)

    def of(self, caller: str, domain: str) -> Iterator[tuple[str, str, Quota]]:
        """(account, how a refusal names it, quota) of each that bounds an answer; no domain for a base model's."""
        if (quota := self.callers.get(caller, self.callers.get(EACH_OTHER))) is not None:
            # A digest: accounts are shared over the bus, and names of people need not be.
            yield f"c:{blake2b(caller.encode(errors='surrogatepass'), digest_size=12).hexdigest()}", "your token", quota
        if domain and (quota := self.domains.get(domain, self.domains.get(EACH_OTHER))) is not None:
            yield f"d:{domain}", f"domain {domain!r}", quota
