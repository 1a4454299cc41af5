"""`lorafleet answers provenance`, on what the registry's own code answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from services.registry.answer_provenance import AnsweringAdapter, AnswerProvenance
from services.registry.family import Adapter
from services.registry.provenance import Provenance
from services.registry.store.answers import Answer, AnsweredWith
from services.registry.store.usage import Usage
from services.registry.timeline.view import ServingAt
from services.registry.version import SemVer
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted
from tests.unit.registry.builders import START, digest, submission

pytestmark = pytest.mark.unit

TRAINED = Adapter("tax-law-lora-v1.0.0", SemVer(1, 0, 0), submission("first"), START)
UPLOADED = Adapter("tax-law-lora-v1.0.1", SemVer(1, 0, 1), replace(submission("second"), training=None), START)


SERVED = ServingAt(
    adapter_id=TRAINED.adapter_id,
    version="1.0.0",
    artifact_sha256=TRAINED.artifact_sha256,
    status="approved",
    active=True,
    decision=None,
    since=START,
    activated_by="anna",
    activated_because="it is better",
    replaced="tax-law-lora-v0.9.0",
)


def reply(*adapters: tuple[Adapter, float]) -> object:
    given = tuple(AnsweredWith(one.adapter_id, one.artifact_sha256, weight) for one, weight in adapters)
    answer = Answer("gen-1", START, "anna", "auto", "0.91 for tax law", "", "base", digest("base"), ("tax-law",), given)
    served = {SERVED.adapter_id: SERVED}
    followed = [
        AnsweringAdapter.of(
            one, [adapter], [Provenance.of(adapter, [], [], Usage())], "", served.get(adapter.adapter_id)
        )
        for one, (adapter, _) in zip(given, adapters, strict=True)
    ]
    return json.loads(AnswerProvenance.of(answer, followed).model_dump_json())


def test_an_answer_shows_who_gave_it_their_training_data_and_what_is_unknown(
    against: Lorafleet, service: Scripted
) -> None:
    service.answer("GET /v1/answers/gen-1/provenance", reply((TRAINED, 0.7), (UPLOADED, 0.3)))
    result = against("answers", "provenance", "gen-1")
    assert result.exit_code == 0, result.stderr
    assert against("adapters", "at", "gen-1").stdout == result.stdout
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "→ answered       tax-law-lora-v1.0.0 × 0.7 + tax-law-lora-v1.0.1 × 0.3" in lines
    assert f"→ base model     base at revision {digest('base')}" in lines
    assert "→ routed         0.91 for tax law" in lines
    assert f"→ data set       {digest('data')}  150 samples of ds-data" in lines
    assert "→ data set       unknown, it was trained elsewhere" in lines
    assert "→ since          2026-01-01T00:00:00Z by anna, in place of tax-law-lora-v0.9.0" in lines
    assert "→ activated      it is better" in lines
    assert any(line.startswith("? tax-law-lora-v1.0.1 was uploaded by trainer@example.org") for line in lines)
    assert "? base model base was trained by its publisher: with what data is unknown here" in lines


def test_an_answer_of_the_base_model_says_that_it_is_the_base_models_alone(
    against: Lorafleet, service: Scripted
) -> None:
    service.answer("GET /v1/answers/gen-1/provenance", reply())
    shown = against("answers", "provenance", "gen-1").stdout
    assert "the base model alone" in shown
    assert "the chain holds" not in shown


def test_an_answer_that_is_not_known_is_an_error(against: Lorafleet) -> None:
    result = against("answers", "provenance", "gen-1")
    assert result.exit_code == 2
    assert "no /v1/answers/gen-1/provenance" in result.stderr


def test_the_registrys_whole_answer_is_printed_as_json(against: Lorafleet, service: Scripted) -> None:
    sent = reply((TRAINED, 1.0))
    service.answer("GET /v1/answers/gen-1/provenance", sent)
    assert json.loads(against("answers", "provenance", "gen-1", "--json").stdout) == sent
