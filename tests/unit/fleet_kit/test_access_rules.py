"""The file of access rules: its faults are named, and rules only ever add rights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_kit.access_rules import AccessRules, Provider, caller_by_rules, read_rules
from fleet_kit.caller import SCOPES, Caller

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scopes": ["generat"]}, "rule 'r': scopes: unknown scope 'generat'"),
        ({"domains": ["Shop"]}, "rule 'r': domains: domain 0 is 'Shop'"),
        ({"scopes": ["fleet:admin"]}, "rule 'r': scope 'fleet:admin' concerns every domain"),
        ({"when": {}}, "rule 'r': when: "),
        ({"when": {"groups": []}}, "rule 'r': when: claim 'groups' has no value"),
        ({"when": {"groups": [7]}}, "rule 'r': when: "),
        ({"providers": "other"}, "rule 'r': providers: there is no provider 'other'"),
        ({"unless": {}}, "rule 'r': unless: "),
        ({"name": 7}, "rule 0: name: "),
    ],
)
def test_a_wrong_rule_is_named_with_its_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rule = {"name": "r", "when": {"groups": "a"}, "scopes": "generate", "domains": "shop"} | change
    provider = {"name": "p", "issuer": "https://p.example", "audience": "a"}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"providers": [provider], "rules": [rule]}))
    with pytest.raises(ValueError, match="access rules") as caught:
        read_rules(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("change", [{"name": "key"}, {"audience": []}, {"issuer": ""}, {"secret": "s"}])
def test_a_wrong_provider_is_named_with_its_field(tmp_path: Path, change: dict[str, Any]) -> None:
    provider = {"name": "p", "issuer": "https://p.example", "audience": "a"} | change
    rule = {"name": "r", "when": {"groups": "a"}, "scopes": "generate", "domains": "shop"}
    (tmp_path / "rules.json").write_text(json.dumps({"providers": [provider], "rules": [rule]}))
    with pytest.raises(ValueError, match=f"provider '{provider['name']}': {next(iter(change))}: "):
        read_rules(tmp_path / "rules.json")


def test_rules_in_yaml_are_those_in_json(tmp_path: Path) -> None:
    """`hd: no` is Norway's domain, no truth value, as in YAML 1.1."""
    rule = {"name": "r", "when": {"hd": "no", "admin": True}, "scopes": ["generate"], "domains": "shop"}
    provider = {"name": "p", "issuer": "https://p.example", "audience": "a"}
    (tmp_path / "rules.json").write_text(json.dumps({"providers": [provider], "rules": [rule]}))
    (tmp_path / "rules.yaml").write_text(
        "# who may do what\n"
        "providers:\n- {name: p, issuer: https://p.example, audience: a}\n"
        "rules:\n- name: r\n  when: {hd: no, admin: true}\n  scopes:\n  - generate\n  domains: shop\n"
    )
    assert read_rules(tmp_path / "rules.yaml") == read_rules(tmp_path / "rules.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rules: [", "not YAML: line 1: expected the node content"),
        ("rules: 1\nrules: 2\n", 'not YAML: line 2: found duplicate key "rules"'),
        ("rules: !!python/name:os.system\n", "not YAML: line 1: could not determine a constructor for the tag"),
        ("rules: 2026-01-02\n", "2026-01-02 is a date: put it in quotes, so that it is a text"),
        ("rules: .nan\n", "Out of range float values are not JSON compliant"),
        ("rules: {[a]: 1}\n", "not what JSON can hold: keys must be str"),
        ("rules: " + "[" * 5000, "not what JSON can hold: maximum recursion depth"),
        ("providers: []\n", "providers: "),
        ("", "valid dictionary"),
    ],
)
def test_faults_of_a_yaml_file_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rules.yml").write_text(content)
    with pytest.raises(ValueError, match="access rules") as caught:
        read_rules(tmp_path / "rules.yml")
    assert message in str(caught.value)


GROUPS = st.lists(st.sampled_from("abcdef"), max_size=6)
SOME_RULES = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(["groups", "roles"]), st.lists(st.sampled_from("abcdef"), min_size=1), min_size=1
        ),
        st.sets(st.sampled_from(["train", "generate", "admin"]), min_size=1),
        st.sets(st.sampled_from(["shop", "bank", "*"]), min_size=1),
    ),
    min_size=1,
    max_size=6,
)


def caller(rules: Any, groups: list[str], roles: list[str]) -> Caller:
    provider = Provider(name="p", issuer="https://p.example", audience=("a",))
    listed = [
        {"name": f"r{number}", "when": when, "scopes": sorted(scopes), "domains": sorted(domains)}
        for number, (when, scopes, domains) in enumerate(rules)
    ]
    made = AccessRules.model_validate({"providers": [provider], "rules": listed})
    [(_, given_rules)] = made.by_provider()
    return caller_by_rules({"sub": "ada", "groups": groups, "roles": roles}, provider, given_rules)


def rights(one: Caller) -> set[tuple[str, str]]:
    return {(s, d) for s in SCOPES for d in ("shop", "bank") if (r := one.restricted_to(s)).can(s) and r.reaches(d)}


@given(SOME_RULES, GROUPS, GROUPS, GROUPS)
def test_another_group_never_takes_rights_away(
    rules: Any, groups: list[str], roles: list[str], more: list[str]
) -> None:
    assert rights(caller(rules, groups, roles)) <= rights(caller(rules, groups + more, roles))


@given(SOME_RULES, GROUPS, GROUPS)
def test_rights_are_exactly_those_of_the_rules_that_match(rules: Any, groups: list[str], roles: list[str]) -> None:
    held = {"groups": set(groups), "roles": set(roles)}
    wanted = {
        (scope, domain)
        for when, scopes, domains in rules
        if all(held[claim] & set(values) for claim, values in when.items())
        for scope in scopes
        for domain in ("shop", "bank")
        if domain in domains or "*" in domains
    }
    assert rights(caller(rules, groups, roles)) == wanted
