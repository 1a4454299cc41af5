"""Within which beginnings of prompts are shared: the domain of what answers, or for the base model the caller."""

from typing import Any, cast

import pytest

from fleet_kit.auth import Caller
from lora_core.sampling import SamplingParams
from services.inference.answer_task import AnswerTask
from services.inference.chosen import Chosen
from tests.unit.inference.events import adapter

pytestmark = pytest.mark.unit

DIGEST = "d" * 64


def scope(subject: str, *domains: str) -> str | None:
    parts = tuple((adapter(domain=domain, sha256=DIGEST), 0.5) for domain in domains)
    first = parts[0][0] if parts else None
    chosen = Chosen("model", cast("Any", None), first, mix=parts if len(parts) > 1 else ())
    caller = Caller(subject, frozenset({"generate"}), frozenset({"*"}))
    return AnswerTask("id", chosen, [1, 2], SamplingParams(), caller).request.scope


def test_callers_of_one_domain_share_and_domains_never_do_even_with_the_same_bytes() -> None:
    assert scope("ann", "law") == scope("ben", "law")
    assert scope("ann", "law") != scope("ann", "tax")
    assert scope("ann", "law", "tax") == scope("ann", "tax", "law")
    assert scope("ann", "law", "tax") not in {scope("ann", "law"), scope("ann", "tax")}


def test_the_base_model_shares_within_one_caller_and_a_caller_is_no_domain() -> None:
    assert scope("ann") == scope("ann")
    assert scope("ann") != scope("ben")
    assert scope("law") != scope("ann", "law")
    assert scope("domains law") != scope("ann", "law")
