"""Which answers may be recorded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_events.v1 import PersonalDataAction, PolicyChanged, RecordAnswers
from services.inference.recording.consent import Consents, is_sampled


def policy(domain: str, mode: str, *, revision: int = 1, fraction: float = 0.0, action: str = "mask") -> PolicyChanged:
    return PolicyChanged(
        domain=domain,
        revision=revision,
        by="x",
        record_answers=RecordAnswers(mode),
        record_fraction=fraction,
        personal_data=PersonalDataAction(action),
    )


def test_of_a_domain_whose_policy_was_never_set_nothing_is_recorded() -> None:
    assert Consents().of("tax").record_answers is RecordAnswers.NONE


@given(st.permutations([1, 2, 3, 2]))
def test_the_newest_policy_holds_in_whatever_order_the_events_come(order: list[int]) -> None:
    modes = {1: "all", 2: "none", 3: "rated"}
    found = Consents()
    for revision in order:
        found = found.apply(policy("tax", modes[revision], revision=revision))
    assert (found.of("tax").record_answers, found.of("tax").revision) == (RecordAnswers.RATED, 3)


@pytest.mark.parametrize(
    ("first", "second", "mode", "fraction", "action"),
    [
        (("all",), ("none",), "none", 0.0, "mask"),
        (("all", 0.0, "drop"), ("all",), "all", 0.0, "drop"),
        (("sampled", 0.3), ("all",), "sampled", 0.3, "mask"),
        (("sampled", 0.3), ("sampled", 0.2), "sampled", 0.2, "mask"),
        (("sampled", 0.3), ("rated",), "rated", 0.3, "mask"),
    ],
)
def test_where_several_domains_took_part_the_strictest_policy_holds(
    first: tuple[str, ...], second: tuple[str, ...], mode: str, fraction: float, action: str
) -> None:
    def of(domain: str, mode: str, fraction: float = 0.0, action: str = "mask") -> PolicyChanged:
        return policy(domain, mode, fraction=fraction, action=action)

    consents = Consents().apply(of("tax", *first)).apply(of("law", *second))
    for own, others in (("tax", ["law"]), ("law", ["tax", "law"])):
        found = consents.strictest(own, others)
        assert (found.record_answers, found.record_fraction, found.personal_data) == (mode, fraction, action)


def test_a_sample_of_the_requests_has_the_share_that_was_asked_for() -> None:
    drawn = sum(is_sampled(f"request-{number}", 0.1) for number in range(10_000))
    assert 900 < drawn < 1100  # 3.3 standard deviations
    assert is_sampled("x", 1.0)
