"""What a token's claims may be, and that acting for somebody only ever takes rights away."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_kit.acting_for import ACT_FOR, Credential, act_for_value, acting_for, read_act_for
from fleet_kit.caller import MAX_DOMAINS, SCOPES, Caller, is_domain, read_claims
from fleet_kit.errors import Problem

pytestmark = pytest.mark.unit

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)
domains = st.frozensets(names, max_size=6) | st.just(frozenset({"*"})) | st.just(frozenset({"*", "shop"}))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def caller(reached: frozenset[str], scopes: frozenset[str] = frozenset(SCOPES)) -> Caller:
    return Caller("ada", scopes, reached)


@pytest.mark.parametrize(
    "wrong",
    [
        *("shop*", "*", "shop", "", 7, 1.5, True, None, {"*": 1}, {"shop": True}, {}),
        *(["shop*"], ["*shop"], ["sh?p"], ["%"], ["shop", ["*"]], [["*"]], [7], [None], [{"*": 1}], [True]),
        *(
            [""],
            [" shop"],
            ["Shop"],
            ["shop\n"],
            ["shop\x00"],
            ["\ud800"],
            ["a" * 64],
            ["-shop"],
            ["**"],
            ["shop,bank"],
        ),
        ["a"] * (MAX_DOMAINS + 1),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_domains_that_are_no_list_of_exact_names_refuse_the_token(wrong: object) -> None:
    with pytest.raises(ValueError, match="domain"):
        read_claims({"sub": "ada", "domains": wrong})


@pytest.mark.parametrize("scope", [7, ["admin"], {"admin": 1}, True, None, "a" * 5000, "admin\x00", "\ud800"])
def test_a_scope_that_is_no_text_refuses_the_token(scope: object) -> None:
    with pytest.raises(ValueError, match="claim 'scope'"):
        read_claims({"sub": "ada", "scope": scope})


@pytest.mark.parametrize("subject", [None, 7, ["ada"], {}, "", " ", "a" * 256, "ada\x00", "a\nb", "\ud800", "\x1b[31m"])
def test_a_subject_that_cannot_be_stored_or_logged_refuses_the_token(subject: object) -> None:
    with pytest.raises(ValueError, match="claim 'sub'"):
        read_claims({"sub": subject})


@given(claims=st.fixed_dictionaries({}, optional={"sub": anything, "scope": anything, "domains": anything}))
def test_claims_of_any_type_make_a_caller_or_a_value_error_and_never_a_wildcard_by_accident(
    claims: dict[str, Any],
) -> None:
    try:
        found = read_claims(claims)
    except ValueError:
        return
    assert found.domains == frozenset(claims.get("domains", []))
    assert all(name == "*" or is_domain(name) for name in found.domains)
    assert found.reaches("some-domain-nobody-named") == ("*" in claims.get("domains", []))


@given(token=domains, requested=domains, name=names)
def test_narrowing_takes_domains_away_and_never_adds_one(
    token: frozenset[str], requested: frozenset[str], name: str
) -> None:
    narrowed = caller(token).narrowed(requested)
    assert narrowed.reaches(name) == (caller(token).reaches(name) and caller(requested).reaches(name))
    assert ("*" in narrowed.domains) == ("*" in token and "*" in requested)
    assert (narrowed.subject, narrowed.scopes) == ("ada", frozenset(SCOPES))


@given(token=domains, first=domains, second=domains)
def test_who_acts_for_somebody_that_acts_for_somebody_reaches_what_all_of_them_reach(
    token: frozenset[str], first: frozenset[str], second: frozenset[str]
) -> None:
    one = caller(token).narrowed(first).narrowed(second)
    assert one.domain_filter == caller(token).narrowed(second).narrowed(first).domain_filter


@given(reached=domains)
def test_the_header_brings_the_domains_over_as_they_were(reached: frozenset[str]) -> None:
    value = acting_for(reached)[ACT_FOR]
    assert value, "an empty value may be lost on the way, and what is lost narrows nothing"
    assert caller(read_act_for(value)).domain_filter == caller(reached).domain_filter


@given(value=st.text(max_size=60))
def test_a_header_that_cannot_be_read_is_refused_by_its_name(value: str) -> None:
    try:
        found = read_act_for(value)
    except Problem as problem:
        assert (problem.status, problem.field) == (400, ACT_FOR)
    else:
        assert all(name == "*" or is_domain(name) for name in found)


@pytest.mark.parametrize("value", ["", " ", ",", "shop,", "shop*", "a b", "-,shop", "--", "x" * 70_000])
def test_a_header_with_a_pattern_or_a_gap_is_refused(value: str) -> None:
    with pytest.raises(Problem) as caught:
        read_act_for(value)
    assert caught.value.status == 400
    assert len(caught.value.detail) < 500


def test_a_domain_that_is_none_cannot_be_acted_for() -> None:
    with pytest.raises(ValueError, match="expected an exact name"):
        act_for_value(["shop\r\nHost: elsewhere"])


def test_a_credential_goes_out_with_the_domains_it_is_used_for_and_is_not_shown() -> None:
    credential = Credential("secret-token")
    assert credential.acting_for(["shop"]) == {"Authorization": "Bearer secret-token", ACT_FOR: "shop"}
    assert Credential("").acting_for([]) == {ACT_FOR: "-"}
    assert "secret-token" not in repr(credential)


@given(reached=domains)
def test_a_scope_of_the_whole_fleet_counts_only_with_every_domain(reached: frozenset[str]) -> None:
    one = caller(reached)
    assert one.can("admin")
    assert one.can("fleet:admin") == ("*" in reached)
    if "*" not in reached:
        with pytest.raises(Problem, match="fleet:admin") as caught:
            one.hold("admin", "fleet:admin")
        assert caught.value.status == 403


@given(reached=domains, name=names)
def test_a_query_is_restricted_to_exactly_what_the_caller_reaches(reached: frozenset[str], name: str) -> None:
    one = caller(reached)
    assert one.reaches(name) == (one.domain_filter is None or name in one.domain_filter)
