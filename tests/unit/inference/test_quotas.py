"""Quotas of domains and callers: what is admitted, when more is, and what replicas learn from each other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.inference.errors import RateLimited
from services.inference.quotas import Ledger, Quotas
from services.inference.quotas import ledger as ledger_module

pytestmark = pytest.mark.unit

EVENING = datetime(2026, 12, 31, 23, 58, 30, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self, at: float = EVENING) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ledger(clock: Clock, **quotas: object) -> Ledger:
    return Ledger(Quotas.model_validate(quotas), clock)


def refusal(found: Ledger, caller: str, domain: str = "") -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        found.admit(caller, domain)
    return caught.value


def test_a_minutes_quota_is_full_again_when_the_minute_is_over(clock: Clock) -> None:
    found = ledger(clock, callers={"anna": {"minute": {"requests": 2}}})
    for _ in range(2):
        found.admit("anna")
        found.charge("anna", "", (1, 5, 5))
    refused = refusal(found, "anna")
    assert (refused.status, refused.code, refused.retry_after) == (429, "rate_limit_exceeded", 30)
    assert refused.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "30s",
    }
    clock.at += 30
    found.admit("anna")


def test_an_answers_headers_tell_of_the_bound_with_the_least_left(clock: Clock) -> None:
    minute = {"requests": 10, "prompt_tokens": 100, "completion_tokens": 1000}
    found = ledger(clock, callers={"anna": {"minute": minute}}, domains={"shop": {"month": {"completion_tokens": 50}}})
    found.charge("anna", "shop", (1, 40, 8))
    of_domain = found.headers("anna", "shop")
    assert of_domain["x-ratelimit-remaining-requests"] == "9"
    assert of_domain["x-ratelimit-reset-requests"] == "30s"
    assert (of_domain["x-ratelimit-limit-tokens"], of_domain["x-ratelimit-remaining-tokens"]) == ("50", "42")
    assert of_domain["x-ratelimit-reset-tokens"] == "90s"
    assert found.headers("anna", "")["x-ratelimit-remaining-tokens"] == "60"
    # A stream's headers are sent before its answer is charged.
    assert found.headers("anna", "shop", begun=1) == of_domain | {"x-ratelimit-remaining-requests": "8"}
    assert found.headers("bert", "") == {}
    assert ledger(clock).headers("anna", "shop") == {}


def test_a_months_quota_is_full_again_in_the_next_month_and_not_in_the_next_minute(clock: Clock) -> None:
    found = ledger(clock, domains={"shop": {"month": {"completion_tokens": 100}}})
    found.charge("anna", "shop", (1, 7, 100))
    clock.at += 60
    refused = refusal(found, "bert", "shop")
    assert (refused.code, refused.retry_after) == ("insufficient_quota", 30)
    assert refused.headers["x-ratelimit-limit-tokens"] == "100"
    assert "domain 'shop' may take 100 completion tokens a month" in refused.message
    clock.at += 30
    found.admit("bert", "shop")


@pytest.mark.parametrize(
    ("amount", "taken"), [("requests", (3, 0, 0)), ("prompt_tokens", (1, 3, 0)), ("completion_tokens", (1, 0, 3))]
)
def test_each_amount_is_bounded_by_its_own_count(clock: Clock, amount: str, taken: tuple[int, int, int]) -> None:
    found = ledger(clock, callers={"*": {"minute": {amount: 3}}})
    found.charge("anna", "", taken)
    assert refusal(found, "anna").message.startswith(f"your token may take 3 {amount.replace('_', ' ')} a minute")
    other = ledger(clock, callers={"*": {"minute": {amount: 4}}})
    other.charge("anna", "", taken)
    other.admit("anna")


def test_a_star_gives_each_one_that_is_not_named_an_amount_of_its_own(clock: Clock) -> None:
    found = ledger(clock, callers={"*": {"minute": {"requests": 1}}, "big": {"minute": {"requests": 3}}})
    found.charge("anna", "", (1, 0, 0))
    refusal(found, "anna")
    found.admit("bert")
    found.charge("big", "", (2, 0, 0))
    found.admit("big")


def test_a_caller_that_is_named_without_amounts_is_not_bounded(clock: Clock) -> None:
    found = ledger(clock, callers={"*": {"minute": {"requests": 1}}, "evaluator": {}})
    found.charge("evaluator", "", (5, 0, 0))
    found.admit("evaluator")


def test_the_base_model_counts_for_the_caller_and_for_no_domain(clock: Clock) -> None:
    found = ledger(clock, domains={"*": {"minute": {"requests": 1}}})
    for _ in range(3):
        found.charge("anna", "", (1, 0, 0))
    found.admit("anna")
    found.admit("anna", "shop")


def test_what_other_replicas_gave_counts_here(clock: Clock) -> None:
    clock.at -= 3600
    quotas = {"domains": {"shop": {"minute": {"requests": 3}, "month": {"requests": 5}}}}
    one, two, three = (ledger(clock, **quotas) for _ in range(3))
    one.charge("anna", "shop", (1, 0, 0))
    two.charge("anna", "shop", (1, 0, 0))
    three.charge("anna", "shop", (1, 0, 0))
    one.admit("anna", "shop")
    one.learn([two.used(), three.used()])
    assert refusal(one, "anna", "shop").code == "rate_limit_exceeded"
    clock.at += 60  # what was given in the former minute counts for the month alone
    one.learn([two.used(), three.used()])
    one.admit("anna", "shop")
    two.charge("anna", "shop", (2, 0, 0))
    one.learn([two.used(), three.used()])
    assert refusal(one, "anna", "shop").code == "insufficient_quota"


def test_a_restarted_replica_goes_on_with_what_it_had_given(clock: Clock) -> None:
    quotas = {"callers": {"*": {"month": {"requests": 2}}}}
    before = ledger(clock, **quotas)
    before.charge("anna", "", (2, 0, 0))
    after = ledger(clock, **quotas)
    after.admit("anna")
    after.resume(before.used())
    refusal(after, "anna")
    clock.at += 120  # January
    later = ledger(clock, **quotas)
    later.resume(before.used())
    later.admit("anna")


def test_names_of_callers_are_not_told_to_other_replicas(clock: Clock) -> None:
    found = ledger(clock, callers={"*": {"month": {"requests": 2}}})
    found.charge("anna@example.com", "", (1, 0, 0))
    assert "anna" not in found.used().model_dump_json()


def test_of_too_many_accounts_the_one_that_took_least_is_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_ACCOUNTS", 2)
    found = ledger(clock, callers={"*": {"month": {"requests": 2}}})
    for caller, requests in (("anna", 2), ("bert", 1), ("cora", 2)):
        found.charge(caller, "", (requests, 0, 0))
    refusal(found, "anna")
    refusal(found, "cora")
    found.admit("bert")


def test_a_quota_with_an_unknown_amount_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="tokens_per_day"):
        Quotas.model_validate({"domains": {"shop": {"minute": {"tokens_per_day": 1}}}})
