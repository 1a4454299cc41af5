"""Which answers may be recorded: the policies of domains, as far as recording depends on them. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from fleet_events.v1 import Consent, PersonalDataAction, PolicyChanged, RecordAnswers

NO_CONSENT = Consent(record_answers=RecordAnswers.NONE, personal_data=PersonalDataAction.MASK)
_STRICTEST_FIRST = (RecordAnswers.NONE, RecordAnswers.RATED, RecordAnswers.SAMPLED, RecordAnswers.ALL)


@dataclass(frozen=True)
class Consents:
    """The consent of each domain whose policy was ever set; of every other domain nothing is recorded."""

    by_domain: Mapping[str, Consent] = field(default_factory=dict)

    def apply(self, event: PolicyChanged) -> "Consents":
        """With one event; itself where the event tells nothing newer. Events may repeat and come in any order."""
        if event.revision <= self.of(event.domain).revision:
            return self
        consent = Consent(
            record_answers=event.record_answers,
            record_fraction=event.record_fraction,
            personal_data=event.personal_data,
            revision=event.revision,
        )
        return Consents({**self.by_domain, event.domain: consent})

    def of(self, domain: str) -> Consent:
        """A domain's consent."""
        return self.by_domain.get(domain, NO_CONSENT)

    def strictest(self, domain: str, others: Collection[str]) -> Consent:
        """What the policies of a record's own domain and of the others that took part permit together.

        Of one that permits rated answers and one that permits a share of the requests, the rated ones of the share.
        """
        consents = [self.of(one) for one in {domain, *others}]
        mode = min((one.record_answers for one in consents), key=_STRICTEST_FIRST.index)
        fractions = [one.record_fraction for one in consents if one.record_answers is RecordAnswers.SAMPLED]
        drop = any(one.personal_data is PersonalDataAction.DROP for one in consents)
        return Consent(
            record_answers=mode,
            record_fraction=0.0 if mode is RecordAnswers.NONE else min(fractions, default=0.0),
            personal_data=PersonalDataAction.DROP if drop else PersonalDataAction.MASK,
            revision=self.of(domain).revision,
        )


def is_sampled(request_id: str, fraction: float) -> bool:
    """Whether a request belongs to a random share of all requests: the answers of one request all do, or none."""
    drawn = int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "big")
    return drawn < fraction * 2**64
