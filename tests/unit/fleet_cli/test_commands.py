"""What commands send to the services, what they print, and what becomes of the services' errors."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from fleet_kit.auth import LocalIssuer
from fleet_kit.nats_auth import inbox_prefix
from tests.unit.fleet_cli import recorded
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted

ADAPTER = recorded.active_adapter() | {"a_field_of_a_newer_registry": 1}
ADAPTER_ID = recorded.ADAPTER_ID


def test_a_list_is_a_table_for_people_and_json_with_every_field_for_programs(
    against: Lorafleet, service: Scripted
) -> None:
    service.answer("GET /v1/adapters", {"adapters": [ADAPTER], "next": None})
    shown = against("adapters", "list", "--domain", "tax", "--active")
    assert shown.exit_code == 0
    row = [ADAPTER_ID, "tax-law", "1.0.0", "approved", "active", "87.5"]
    assert shown.stdout.split("\n")[1].split() == row
    assert service.requests[0].path == "/v1/adapters?domain=tax&active=true"
    assert service.requests[0].headers["authorization"] == "Bearer a-token"
    [found] = json.loads(against("adapters", "list", "--json").stdout)
    assert found["a_field_of_a_newer_registry"] == 1


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, {"title": "Unknown adapter", "detail": "no adapter 'x'", "field": "adapter_id"}, 2, "no adapter 'x'"),
        (422, {"title": "Invalid request", "detail": "domain: bad", "field": "domain"}, 2, "domain: bad"),
        (
            409,
            {"title": "Not allowed", "detail": "was rejected"},
            1,
            "registry answered 409: Not allowed: was rejected",
        ),
        (401, {"title": "Not authenticated", "detail": "expired"}, 1, "expired"),
        (403, {"title": "Scope missing", "detail": "lacks 'train'"}, 1, "lacks 'train'"),
        (503, {"title": "Temporarily unavailable", "detail": "database"}, 1, "Temporarily unavailable: database"),
        (500, b"it broke\nbadly", 1, "registry answered 500: it broke badly"),
        (404, {"error": {"message": "model 'x' does not exist", "param": "model"}}, 2, "model 'x' does not exist"),
    ],
)
def test_a_services_error_is_one_line_and_an_exit_code(
    against: Lorafleet, service: Scripted, status: int, body: object, code: int, message: str
) -> None:
    service.answer("GET /v1/adapters/x", body, status, "application/problem+json")
    result = against("adapters", "show", "x")
    assert result.exit_code == code
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_a_service_that_is_not_there_is_named_with_its_address(lorafleet: Lorafleet) -> None:
    result = lorafleet("adapters", "list", LORAFLEET_REGISTRY_URL="http://127.0.0.1:9", LORAFLEET_TOKEN="t")
    assert result.exit_code == 1
    assert "registry does not answer at http://127.0.0.1:9" in result.stderr


def test_without_a_fleet_the_way_to_one_is_told(lorafleet: Lorafleet) -> None:
    result = lorafleet("adapters", "list")
    assert result.exit_code == 1
    assert "lorafleet up" in result.stderr
    assert "LORAFLEET_REGISTRY_URL" in result.stderr


def test_a_chat_is_printed_as_it_is_streamed_and_names_who_answered(against: Lorafleet, service: Scripted) -> None:
    chunks = [
        {"id": "gen-1", "choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"id": "gen-1", "choices": [{"delta": {"content": "Forty"}}]},
        {"id": "gen-1", "choices": [{"delta": {"content": "-two"}}], "lorafleet": {"adapter_id": "tax-lora-v1.0.0"}},
    ]
    stream = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
    service.answer("POST /v1/chat/completions", stream.encode(), kind="text/event-stream")
    result = against("chat", "How many?")
    assert result.stdout == "Forty-two\n"
    assert "tax-lora-v1.0.0" in result.stderr
    assert "lorafleet feedback gen-1" in result.stderr
    assert service.requests[0].json["model"] == "auto"  # type: ignore[index]


def test_a_chat_with_a_weighted_set_names_all_of_it(against: Lorafleet, service: Scripted) -> None:
    mix = [{"adapter_id": "tax-lora-v1.0.0", "weight": 0.7}, {"adapter_id": "law-lora-v1.1.0", "weight": 0.3}]
    chunk = {"id": "g", "choices": [{"delta": {"content": "Yes"}}], "lorafleet": {"adapter_id": "", "mix": mix}}
    stream = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    service.answer("POST /v1/chat/completions", stream.encode(), kind="text/event-stream")
    shown = against("chat", "May I?", "--model", "tax-lora:0.7+law-lora:0.3")
    assert "[tax-lora-v1.0.0 × 0.7 + law-lora-v1.1.0 × 0.3; rate it" in shown.stderr


def test_several_models_answer_side_by_side_and_the_better_one_can_be_preferred(
    against: Lorafleet, service: Scripted
) -> None:
    choices = [
        {"index": n, "message": {"content": text}, "model": f"tax-lora@1.{n}.0", "generation_id": f"gen-{n}"}
        for n, text in enumerate(("Forty.", "Forty-two."))
    ]
    told = {"id": "gen-0", "choices": choices, "lorafleet": {"comparison_id": "cmp-1"}}
    service.answer("POST /v1/chat/completions", told)
    result = against("chat", "How many?", "--compare", "tax-lora@1.0.0", "--compare", "tax-lora@1.1.0")
    assert result.stdout == "[0] tax-lora@1.0.0\nForty.\n\n[1] tax-lora@1.1.0\nForty-two.\n"
    assert "lorafleet feedback cmp-1 --preferred" in result.stderr
    sent = service.requests[0].json
    assert isinstance(sent, dict)
    assert (sent["compare"], sent["stream"], "model" in sent) == (["tax-lora@1.0.0", "tax-lora@1.1.0"], False, False)
    for refused in (("--compare", "a"), ("--compare", "a", "--compare", "b", "--model", "c")):
        assert against("chat", "How many?", *refused).exit_code == 2
    assert len(service.requests) == 1


def test_an_approval_without_an_evaluation_is_sent_with_its_reason_alone(against: Lorafleet, service: Scripted) -> None:
    service.answer("POST /v1/adapters/tax-lora-v1.0.0/approve", ADAPTER)
    command = ("adapters", "approve", "tax-lora-v1.0.0")
    refused = against(*command, "--without-evaluation")
    assert refused.exit_code == 2
    assert "--reason" in refused.stderr
    assert service.requests == []
    assert against(*command, "--without-evaluation", "--reason", "no golden data set yet").exit_code == 0
    assert service.requests[-1].json == {"reason": "no golden data set yet", "without_evaluation": True}
    assert against(*command).exit_code == 0
    assert service.requests[-1].json == {"reason": ""}, "what an older registry takes too"


def test_a_policy_keeps_the_settings_that_are_not_named(against: Lorafleet, service: Scripted) -> None:
    policy = {"mode": "confident", "approve_at": 85.0, "allow_approval_without_evaluation": False}
    service.answer("GET /v1/policies/tax", policy)
    service.answer("PUT /v1/policies/tax", policy)
    changes = ("mode=simple", "allow_approval_without_evaluation=true")
    assert against("policies", "set", "tax", *changes).exit_code == 0
    sent = {"mode": "simple", "approve_at": 85.0, "allow_approval_without_evaluation": True}
    assert service.requests[-1].json == sent
    assert "approve_at" in against("policies", "show", "tax").stdout
    wrong = against("policies", "set", "tax", "approve_at")
    assert (wrong.exit_code, "expected NAME=VALUE, for example approve_at=90, not 'approve_at'" in wrong.stderr) == (
        2,
        True,
    )


def test_a_stream_that_breaks_is_an_error(against: Lorafleet, service: Scripted) -> None:
    stream = b'data: {"id": "g", "choices": []}\n\ndata: {"error": {"message": "the answer broke off"}}\n\n'
    service.answer("POST /v1/chat/completions", stream, kind="text/event-stream")
    result = against("chat", "How many?")
    assert result.exit_code == 1
    assert "the answer broke off" in result.stderr


def test_an_event_is_shown_as_a_nats_command_with_exact_headers_and_body(lorafleet: Lorafleet, tmp_path: Path) -> None:
    body = '{"domain": "tax", "query": "what\'s due", "description": "{{ ID }}"}'
    result = lorafleet("events", "publish", "training-requested", "-", "--dry-run", stdin=body)
    words = shlex.split(result.stdout)
    subject = "lorafleet.v1.training.requested"
    assert words[:6] == ["nats", "pub", "--jetstream", "-s", "nats://127.0.0.1:4222", subject]
    headers = dict(word.split(": ", 1) for flag, word in itertools.pairwise(words) if flag == "-H")
    assert headers["ce-type"] == "lorafleet.events.v1.TrainingRequested"
    assert headers["Nats-Msg-Id"] == f"{headers['ce-source']}/{headers['ce-id']}"
    # nats takes a body for a template of Go; {{"{{"}} is how that writes two braces.
    assert json.loads(words[-1].replace('{{"{{"}}', "{{")) == json.loads(body)
    assert words[-1].count("{{") == 2
    seed = tmp_path / "home" / "keys" / "nats-upstream.nk"
    seed.parent.mkdir(parents=True, exist_ok=True)
    seed.write_text("a seed")
    shown = shlex.split(lorafleet("events", "publish", "training-requested", "-", "--dry-run", stdin=body).stdout)
    assert shown[5:10] == ["--nkey", str(seed), "--inbox-prefix", inbox_prefix("upstream"), subject]


def test_a_minted_token_carries_its_scopes_and_domains(lorafleet: Lorafleet, tmp_path: Path) -> None:
    import jwt

    issuer = LocalIssuer.create(tmp_path / "home" / "keys")
    result = lorafleet("token", "mint", "--scopes", "generate, feedback", "--domains", "tax")
    key = jwt.PyJWK.from_dict(issuer.jwks()["keys"][0])
    claims = jwt.decode(result.stdout.strip(), key, algorithms=["EdDSA"], audience="lorafleet")
    assert (claims["scope"], claims["domains"]) == ("generate feedback", ["tax"])


def test_a_provenance_chain_that_speaks_of_two_artifacts_is_called_broken(
    against: Lorafleet, service: Scripted
) -> None:
    chain = {
        "adapter_id": "tax-lora-v1.0.0",
        "base_model": {"name": "b", "revision": "r"},
        "checkpoint": {"sha256": "c"},
        "artifact": {"sha256": "aa", "bytes": 1},
        "loaded": [{"replica": "one", "artifact_sha256": "aa"}],
        "answers": {"count": 0},
    }
    service.answer("GET /v1/adapters/tax-lora-v1.0.0/provenance", chain)
    assert "the chain holds" in against("adapters", "provenance", "tax-lora-v1.0.0").stdout
    chain["loaded"] = [{"replica": "one", "artifact_sha256": "bb"}]
    service.answer("GET /v1/adapters/tax-lora-v1.0.0/provenance", chain)
    shown = against("adapters", "provenance", "tax-lora-v1.0.0").stdout
    assert "replica one names artifact bb, but aa is registered" in shown
    assert "the chain holds" not in shown


def test_what_an_imported_adapter_was_trained_on_is_unknown_and_not_still_to_come(
    against: Lorafleet, service: Scripted
) -> None:
    chain = {
        "adapter_id": "tax-lora-v1.0.0",
        "origin": {"source": "upload", "form": "peft"},
        "base_model": {"name": "b", "revision": "r"},
        "checkpoint": {"sha256": "c"},
        "artifact": {"sha256": "aa", "bytes": 1},
    }
    service.answer("GET /v1/adapters/tax-lora-v1.0.0/provenance", chain)
    shown = against("adapters", "provenance", "tax-lora-v1.0.0").stdout.splitlines()
    assert next(line for line in shown if "data set" in line).endswith("unknown, it was trained elsewhere")
    assert next(line for line in shown if "evaluation" in line).endswith("not yet")


async def test_the_async_client_carries_out_the_same_calls(service: Scripted, tmp_path: Path) -> None:
    from lorafleet import calls
    from lorafleet.clients import AsyncFleetClient
    from lorafleet.errors import ServiceError
    from lorafleet.home import FleetHome

    service.answer("GET /v1/adapters", {"adapters": [ADAPTER]})
    home = FleetHome(tmp_path, {"LORAFLEET_REGISTRY_URL": service.url, "LORAFLEET_TOKEN": "t"})
    async with AsyncFleetClient(home) as fleet:
        [found] = await fleet.call(calls.adapters(domain="tax"))
        assert found.adapter_id == ADAPTER_ID
        with pytest.raises(ServiceError) as refused:
            await fleet.call(calls.adapter("a/b"))
    assert refused.value.status == 404
    assert service.requests[-1].path == "/v1/adapters/a%2Fb"


def test_a_persons_score_goes_to_the_answer_and_a_judges_agreement_is_shown(
    against: Lorafleet, service: Scripted
) -> None:
    service.answer("PUT /v1/evaluations/ev-1/samples/s001/label", {"score": 35})
    assert against("golden", "label", "ev-1", "s001", "35", "--note", "wrong paragraph").exit_code == 0
    assert service.requests[0].json == {"score": 35.0, "note": "wrong paragraph"}
    refused = against("golden", "label", "ev-1", "s001", "101")
    assert (refused.exit_code, len(service.requests)) == (2, 1)

    alpha = {"value": 0.81, "low": 0.7, "high": 0.9}
    found = {"judge": "gpt/1+0f", "domain": "tax", "answers": 40, "alpha": alpha, "pairwise": None, "bias": -2.5}
    service.answer("GET /v1/judges/agreement", found)
    shown = json.loads(against("golden", "agreement", "gpt/1+0f", "--domain", "tax", "--json").stdout)
    assert (shown["alpha"], shown["pairwise"], shown["bias"]) == (alpha, None, -2.5)
    assert service.requests[1].path == "/v1/judges/agreement?judge=gpt%2F1%2B0f&domain=tax"


def test_a_route_is_shown_with_its_reason_and_a_wrong_one_is_corrected(against: Lorafleet, service: Scripted) -> None:
    match = {"adapter_id": "tax-lora-v1.0.0", "family": "tax-lora", "domain": "tax", "score": 0.71, "threshold": 0.44}
    service.answer("POST /v1/route", {"outcome": "match", "matches": [match], "why": "tax-lora-v1.0.0 is near enough"})
    shown = against("route", "ask", "when is the return due", "--domain", "tax")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.split("\n")[1].split() == ["tax-lora-v1.0.0", "tax", "0.710", "0.440"]
    assert "tax-lora-v1.0.0 is near enough" in shown.stdout
    service.answer("POST /v1/corrections", {"domain": "tax", "family": "tax-lora"})
    taught = against("route", "teach", "may I deduct my bicycle", "--domain", "tax", "--to", "tax-lora")
    assert "tax-lora answers this query" in taught.stdout
    assert service.requests[-1].json == {"query": "may I deduct my bicycle", "domain": "tax", "family": "tax-lora"}
    assert against("route", "teach", "hello", "--domain", "tax", "--to-none").exit_code == 0
    assert service.requests[-1].json == {"query": "hello", "domain": "tax", "family": None}
    kept = {"correction_id": "ab" * 32, "domain": "tax", "query": "hello", "family": None, "taught_by": "ann"}
    service.answer("GET /v1/corrections", {"corrections": [{**kept, "taught_at": "2026-12-01T10:00:00Z"}]})
    listed = against("route", "corrections", "--domain", "tax", "--json")
    assert json.loads(listed.stdout)[0]["query"] == "hello"
    assert service.requests[-1].path == "/v1/corrections?limit=100&domain=tax"
    service.answer(f"DELETE /v1/corrections/tax/{'ab' * 32}", {"domain": "tax", "correction_id": "ab" * 32})
    assert "forgot correction" in against("route", "forget", "ab" * 32, "--domain", "tax").stdout


@pytest.mark.parametrize("options", [(), ("--to", "tax-lora", "--to-none")])
def test_a_correction_names_one_family_or_none(against: Lorafleet, service: Scripted, options: tuple[str, ...]) -> None:
    refused = against("route", "teach", "hello", "--domain", "tax", *options)
    assert refused.exit_code == 2
    assert "--to" in refused.stderr
    assert service.requests == []


@pytest.mark.requirement("LA-1.7")
def test_a_person_to_forget_is_named_to_trainer_evaluator_and_inference(against: Lorafleet, service: Scripted) -> None:
    waiting = [{"service": one, "state": "requested"} for one in ("evaluator", "trainer")]
    service.answer(
        "POST /v1/erasures",
        {"erasure_id": "er-1", "state": "requested", "services": waiting}
        | {"kept_elsewhere": ["kept in your bucket: s3://b/x, filtered from builds"]},
    )
    service.answer("POST /v1/golden-erasures", {"erasure_id": "er-1", "deleted": 2})
    service.answer("POST /v1/stored-erasures", {"erasure_id": "er-1", "deleted": 1})
    shown = against("data", "forget", "anna", "--domain", "tax", "--adapters", "replace")
    assert "er-1: requested (evaluator requested, trainer requested)" in shown.stdout, shown.output
    assert "kept in your bucket: s3://b/x, filtered from builds" in shown.stderr
    asked, *told = service.requests[-3:]
    assert (asked.json["subject"], asked.json["awaits"], asked.json["adapters"]) == (
        "anna",
        ["evaluator", "inference"],
        "replace",
    )
    assert [one.json for one in told] == 2 * [{"erasure_id": "er-1", "subject": "anna", "domain": "tax"}]
