"""What commands send to the services, what they print, and what becomes of the services' errors."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from fleet_events import v1
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


@pytest.mark.requirement("LA-4.2")
def test_every_option_of_the_pipeline_reaches_the_request(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"rank": 8, "epochs": 2, "batchSize": 4}'.replace("batchSize", "batch_size"))
    service.answer("GET /v1/golden/tax-golden-v1", {"dataset_id": "tax-golden-v1", "domain": "tax"})
    service.answer("POST /v1/jobs", {"job_id": "job-1"}, 202)
    result = against(
        *("lifecycle", "run", "--domain", "tax", "--query", "income tax", "--golden-dataset", "tax-golden-v1"),
        *("--method", "dora", "--rank", "32", "--auto-approve-threshold", "90", "--config", str(config), "--no-wait"),
    )
    assert result.exit_code == 0, result.stderr
    assert "job-1" in result.stdout
    assert service.requests[-1].json == {
        "domain": "tax",
        "query": "income tax",
        "goldenDatasetId": "tax-golden-v1",
        "method": "dora",
        "hyperparameters": {"rank": 32, "epochs": 2, "batchSize": 4},
        "autoApproveThreshold": 90,
    }


def test_samples_are_sent_as_ndjson_for_their_domain(against: Lorafleet, service: Scripted) -> None:
    service.answer("POST /v1/samples", {"received": 1, "added": 1, "duplicates": 0}, 201)
    result = against("data", "import", "-", "--domain", "tax", stdin='{"prompt": "ä?", "completion": "b"}\n\n')
    assert "1 samples recorded for tax, 0 were already known" in result.stdout
    [request] = service.requests
    assert (request.path, request.headers["content-type"]) == ("/v1/samples?domain=tax", "application/x-ndjson")
    assert request.json == {"prompt": "ä?", "completion": "b"}


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


def test_an_import_that_waits_for_a_human_shows_the_way_on(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "a.gguf").write_bytes(b"x")
    service.answer("POST /v1/adapters/import", recorded.waiting_adapter(), 201)
    shown = against("adapters", "import", str(tmp_path / "a.gguf"), "--domain", "tax", "--description", "tax")
    assert f"lorafleet adapters approve {ADAPTER_ID}" in shown.stderr
    assert "--description" not in shown.stderr


def test_a_stream_that_breaks_is_an_error(against: Lorafleet, service: Scripted) -> None:
    stream = b'data: {"id": "g", "choices": []}\n\ndata: {"error": {"message": "the answer broke off"}}\n\n'
    service.answer("POST /v1/chat/completions", stream, kind="text/event-stream")
    result = against("chat", "How many?")
    assert result.exit_code == 1
    assert "the answer broke off" in result.stderr


def test_a_peft_folder_is_uploaded_with_its_fields_and_never_a_pickle(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    refused = against("adapters", "register", str(tmp_path), "--domain", "tax")
    assert refused.exit_code == 2
    assert "adapter_model.safetensors" in refused.stderr
    (tmp_path / "adapter_model.safetensors").write_bytes(b"tensors")
    service.answer("POST /v1/adapters", ADAPTER, 201)
    assert against("adapters", "register", str(tmp_path), "--domain", "tax", "--version", "1.0.0").exit_code == 0
    body = service.requests[-1].body
    for part in (b'name="domain"', b'name="version"', b'filename="adapter_model.safetensors"', b"tensors"):
        assert part in body
    assert b"pickle" not in body


@pytest.mark.parametrize(
    "weights", ["adapter_model.safetensors", "adapters.safetensors", "a.gguf", "a.arrow", "a.tar.gz"]
)
def test_an_import_sends_the_files_of_the_form_that_it_finds_and_no_others(
    against: Lorafleet, service: Scripted, tmp_path: Path, weights: str
) -> None:
    (tmp_path / "given").mkdir()
    for name in ("adapter_config.json", "optimizer.pt", weights):
        (tmp_path / "given" / name).write_bytes(f"content of {name}".encode())
    service.answer("POST /v1/adapters/import", ADAPTER, 201)
    place = tmp_path / "given" / weights if weights == "a.tar.gz" else tmp_path / "given"
    done = against("adapters", "import", str(place), "--domain", "tax", "--method", "dora")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"imported {ADAPTER['adapter_id']}: {ADAPTER['status']}\n"
    assert "without --description, `auto` routes to it by" in done.stderr
    body = service.requests[-1].body
    assert f"content of {weights}".encode() in body
    assert (b"content of adapter_config.json" in body) == weights.endswith("safetensors")
    assert b"optimizer" not in body


def test_golden_samples_of_one_domain_do_not_go_into_anothers_data_set(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text('{"prompt": "One?", "expected_output": "Yes."}\n')
    service.answer("GET /v1/golden/tax-golden", {"dataset_id": "tax-golden", "domain": "law"})
    done = against("golden", "import", "tax-golden", str(file), "--domain", "tax")
    assert done.exit_code == 2
    assert "--domain: 'tax-golden' belongs to domain 'law', not to 'tax'" in done.stderr
    assert [one.method for one in service.requests] == ["GET"]


@pytest.mark.parametrize("command", ["register", "import"])
def test_an_adapter_is_sent_only_with_a_golden_data_set_of_its_domain(
    against: Lorafleet, service: Scripted, tmp_path: Path, command: str
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    arguments = ("adapters", command, str(tmp_path), "--domain", "tax", "--golden-dataset", "tax-golden")
    unknown = against(*arguments)
    assert unknown.exit_code == 2
    assert "--golden-dataset: 'tax-golden' does not exist" in unknown.stderr
    service.answer("GET /v1/golden/tax-golden", {"dataset_id": "tax-golden", "domain": "law"})
    foreign = against(*arguments)
    assert foreign.exit_code == 2
    assert "'tax-golden' belongs to domain 'law', not to 'tax'" in foreign.stderr
    assert {one.method for one in service.requests} == {"GET"}
    service.answer("GET /v1/golden/tax-golden", {"dataset_id": "tax-golden", "domain": "tax"})
    service.answer("POST /v1/adapters" + ("/import" if command == "import" else ""), ADAPTER, 201)
    done = against(*arguments)
    assert done.exit_code == 0, done.stderr
    assert b'name="golden_dataset_id"' in service.requests[-1].body


def test_an_import_from_elsewhere_names_its_source_and_a_token_from_a_file(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    service.answer("POST /v1/adapters/import", ADAPTER, 201)
    (tmp_path / "token").write_text("hf_x\n")
    for source in ("someone/adapter@v1", "s3://lorafleet/registry/imports/tax/a"):
        options = ("--domain", "tax", "--base-model", "small", "--hub-token-file", str(tmp_path / "token"))
        assert against("adapters", "import", source, *options).exit_code == 0
        assert service.requests[-1].json == {
            "domain": "tax",
            "base_model": "small",
            "hub_token": "hf_x",
            "source": source,
        }


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["adapter_model.bin"], "adapter_model.bin may hold pickled code"),
        (["a.gguf", "b.gguf"], "name one of a.gguf, b.gguf"),
        (["adapter_config.json"], "contains no adapter; expected a folder with adapter_config.json"),
    ],
)
def test_a_folder_that_is_no_adapter_is_not_sent(
    against: Lorafleet, service: Scripted, tmp_path: Path, names: list[str], why: str
) -> None:
    (tmp_path / "given").mkdir()
    for name in names:
        (tmp_path / "given" / name).write_bytes(b"x")
    refused = against("adapters", "import", str(tmp_path / "given"), "--domain", "tax")
    assert (refused.exit_code, service.requests) == (2, [])
    assert why in refused.stderr
    assert "nowhere does not exist here" in against("adapters", "import", "nowhere", "--domain", "tax").stderr


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
    from fleet_cli.client import calls
    from fleet_cli.client.clients import AsyncFleetClient
    from fleet_cli.client.errors import ServiceError
    from fleet_cli.client.home import FleetHome

    service.answer("GET /v1/adapters", {"adapters": [ADAPTER]})
    home = FleetHome(tmp_path, {"LORAFLEET_REGISTRY_URL": service.url, "LORAFLEET_TOKEN": "t"})
    async with AsyncFleetClient(home) as fleet:
        [found] = await fleet.call(calls.adapters(domain="tax"))
        assert found.adapter_id == ADAPTER_ID
        with pytest.raises(ServiceError) as refused:
            await fleet.call(calls.adapter("a/b"))
    assert refused.value.status == 404
    assert service.requests[-1].path == "/v1/adapters/a%2Fb"


def test_every_hyperparameter_of_the_contract_is_an_option_and_reaches_the_request(
    against: Lorafleet, service: Scripted
) -> None:
    given: dict[str, object] = {}
    for name, field in v1.Hyperparameters.model_fields.items():
        text = str(field.annotation)
        words = {"scheduler": "cosine", "preference_loss": "ipo", "ranking_loss": "rrhf", "target_modules": "q_proj"}
        given[name] = words.get(name, 0.1 if "float" in text else 8)
    options: list[str] = []
    for name, value in given.items():
        options += [{"target_modules": "--target-module"}.get(name, "--" + name.replace("_", "-")), str(value)]
    service.answer("POST /v1/jobs", {"job_id": "job-1"}, 202)
    more = ("--objective", "dpo", "--continue-from", "tax-lora-v1.0.0", "--priority", "7", "--export", "gguf")
    result = against("lifecycle", "run", "--domain", "tax", "--no-wait", *options, *more)
    assert result.exit_code == 0, result.stderr
    request = service.requests[-1].json
    assert isinstance(request, dict)
    sent = v1.TrainingRequested.model_validate(request)
    assert sent.hyperparameters is not None
    used = sent.hyperparameters.model_dump(by_alias=False)
    assert {name: used[name] for name in given} == {**given, "target_modules": ("q_proj",)}
    assert (sent.objective, sent.continue_from, sent.priority, sent.exports) == ("dpo", "tax-lora-v1.0.0", 7, ("gguf",))


@pytest.mark.parametrize(
    ("command", "state", "message"),
    [
        ("pause", "running", "job-1 is being paused"),
        ("pause", "paused", "job-1 was paused"),
        ("resume", "queued", "job-1 is queued"),
        ("retry", "queued", "job-1 is queued"),
        ("cancel", "running", "job-1 is being cancelled"),
    ],
)
def test_a_job_is_paused_resumed_retried_and_cancelled(
    against: Lorafleet, service: Scripted, command: str, state: str, message: str
) -> None:
    service.answer(f"POST /v1/jobs/job-1/{command}", {"job_id": "job-1", "state": state}, 202)
    reason = ("--reason", "night") if command in ("pause", "cancel") else ()
    result = against("jobs", command, "job-1", *reason)
    assert message in result.stdout
    assert service.requests[-1].body == (b'{"reason":"night"}' if reason else b"")


def test_a_job_is_shown_with_every_attempt_and_why_it_ended(against: Lorafleet, service: Scripted) -> None:
    service.answer("GET /v1/jobs/job-1", recorded.crashed_job())
    shown = against("jobs", "show", "job-1").stdout
    for shown_part in ("running", "w1", "crashed", "killed by signal 9"):
        assert shown_part in shown


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


@pytest.mark.parametrize("options", [(), ("--to", "tax-lora", "--to-none")])
def test_a_correction_names_one_family_or_nobody(
    against: Lorafleet, service: Scripted, options: tuple[str, ...]
) -> None:
    refused = against("route", "teach", "hello", "--domain", "tax", *options)
    assert refused.exit_code == 2
    assert "--to" in refused.stderr
    assert service.requests == []


def test_a_failed_build_names_file_row_and_field_and_how_to_name_a_column(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "faq.csv").write_text("question,completion\nMay I?,Yes.\n")
    faults = [
        {
            "field": "sources.0",
            "value": "faq.csv: prompt: no column 'prompt'",
            "expected": "one of completion, question",
        },
        {"field": "sources.1.query", "value": "''", "expected": "words to look for"},
    ]
    service.answer("PUT /v1/uploads", {"upload_id": "a" * 64})
    service.answer("POST /v1/datasets", {"build_id": "b1"}, 202)
    service.answer("GET /v1/datasets/builds/b1", {"build_id": "b1", "state": "failed", "faults": faults})
    shown = against("data", "build", "faq", "--domain", "shop", "--file", str(tmp_path / "faq.csv"))
    assert shown.exit_code == 1
    assert shown.stderr.splitlines() == [
        "error: faq.csv: prompt: no column 'prompt', expected one of completion, question",
        "sources.1.query: '', expected words to look for",
        "name it with --column, for example --column prompt=question",
    ]


def test_the_scale_of_ratings_and_what_becomes_of_unusable_rows_are_options(
    against: Lorafleet, service: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "faq.ndjson").write_text('{"prompt": "p", "completion": "c", "rating": 9}\n')
    service.answer("PUT /v1/uploads", {"upload_id": "a" * 64})
    service.answer("POST /v1/datasets", {"build_id": "b1"}, 202)
    file = str(tmp_path / "faq.ndjson")
    options = ("--column", "prompt=q", "--rating-best", "10", "--unusable", "drop", "--live", "--no-wait")
    built = against("data", "build", "faq", "--domain", "shop", "--file", file, *options)
    assert built.exit_code == 0, built.stderr
    assert service.requests[-1].json["sources"] == [  # type: ignore[index]
        {
            "kind": "upload",
            "upload_id": "a" * 64,
            "columns": {"prompt": "q", "rating_best": 10.0},
            "unusable": "drop",
        },
        {"kind": "live", "query": "", "min_rating": None},
    ]
