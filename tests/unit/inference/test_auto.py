"""What `auto` makes of the router's answer."""

import json

import httpx
import pytest

from fleet_kit.acting_for import Credential
from inference.events import BASE_REVISION, OTHER_REVISION, activated, adapter, deactivated, registered
from inference.test_resolution import ANYONE, TAX_ONLY
from services.inference.catalogue import Catalogue, CatalogueEvent
from services.inference.errors import Busy
from services.inference.resolution import Base
from services.inference.router_client import Match, Query, RouterAnswer, ask, choose
from services.router.api import RouteRequest

BASE = Base("tiny", BASE_REVISION)
BASES = (BASE,)
V1, V2, TAX = adapter("1.0.0"), adapter("2.0.0"), adapter("1.0.0", domain="tax")


def answer(*adapter_ids: str) -> RouterAnswer:
    matches = [
        Match(adapter_id=one, family=one.rpartition("-v")[0], domain=one.partition("-")[0], score=0.9 - 0.1 * place)
        for place, one in enumerate(adapter_ids)
    ]
    return RouterAnswer(matches=matches, threshold=0.42)


def known(*events: CatalogueEvent) -> Catalogue:
    catalogue = Catalogue()
    for event in events:
        catalogue = catalogue.apply(event)
    return catalogue


def test_the_nearest_active_adapter_answers() -> None:
    chosen, routed = choose(answer("law-lora-v1.0.0", "tax-lora-v1.0.0"), known(activated(V1, 1)), BASES, ANYONE)
    assert chosen == V1
    assert (routed.matched, routed.adapter_id, routed.score) == (True, "law-lora-v1.0.0", 0.9)


def test_the_base_model_answers_and_says_so_when_nothing_is_near() -> None:
    chosen, routed = choose(answer(), known(activated(V1, 1)), BASES, ANYONE)
    assert chosen is None
    assert not routed.matched
    assert "no adapter is near enough (threshold 0.42)" in routed.reason


def test_every_answer_says_score_threshold_margin_and_why() -> None:
    near = Match(adapter_id="law-lora-v1.0.0", family="law-lora", domain="law", score=0.7, threshold=0.5)
    answer = RouterAnswer(matches=[near], threshold=0.5, outcome="ambiguous", nearest=near, margin=0.01)
    _, routed = choose(answer, known(activated(V1, 1)), BASES, ANYONE)
    assert (routed.score, routed.threshold, routed.margin, routed.ambiguous) == (0.7, 0.5, 0.01, True)
    assert routed.reason == "nearest adapter, similarity 0.700, its threshold 0.500; others suit about as well"
    far = near.model_copy(update={"score": 0.4})
    _, routed = choose(RouterAnswer(matches=[], threshold=0.5, nearest=far), known(), BASES, ANYONE)
    assert (routed.score, routed.threshold) == (0.4, 0.5)
    assert "no adapter is near enough (threshold 0.50), the nearest has similarity 0.400" in routed.reason
    _, routed = choose(RouterAnswer(matches=[], threshold=0.5, nearest=near), known(), BASES, ANYONE)
    assert "it is like a query that was taught to be for no adapter" in routed.reason


def test_a_match_that_was_replaced_stands_for_its_family() -> None:
    chosen, _ = choose(answer("law-lora-v1.0.0"), known(activated(V1, 1), activated(V2, 2)), BASES, ANYONE)
    assert chosen == V2


def test_a_match_that_was_deactivated_is_passed_over() -> None:
    catalogue = known(activated(V1, 1), deactivated(V1, 2), activated(TAX, 1))
    chosen, _ = choose(answer("law-lora-v1.0.0", "tax-lora-v1.0.0"), catalogue, BASES, ANYONE)
    assert chosen == TAX


@pytest.mark.parametrize("events", [[], [registered(V1, 1)]])
def test_a_match_that_is_newer_than_the_catalogue_makes_the_caller_wait(events: list[CatalogueEvent]) -> None:
    with pytest.raises(Busy):
        choose(answer("law-lora-v1.0.0"), known(*events), BASES, ANYONE)


def test_a_match_of_another_base_model_is_passed_over_and_named() -> None:
    foreign = adapter("1.0.0", base=OTHER_REVISION, domain="tax")
    chosen, routed = choose(answer("tax-lora-v1.0.0"), known(activated(foreign, 1)), BASES, TAX_ONLY)
    assert chosen is None
    assert "tax-lora-v1.0.0: incompatible_base_model" in routed.reason


@pytest.mark.parametrize("events", [[activated(V1, 1)], [activated(V1, 1), deactivated(V1, 2)], []])
def test_a_match_beyond_the_callers_domains_is_passed_over_and_not_named(events: list[CatalogueEvent]) -> None:
    chosen, routed = choose(answer("law-lora-v1.0.0"), known(*events), BASES, TAX_ONLY)
    assert chosen is None
    assert "law" not in routed.reason


async def test_the_router_is_asked_with_the_ends_of_long_turns_and_never_with_more_than_it_takes() -> None:
    bodies: list[RouteRequest] = []

    def router(request: httpx.Request) -> httpx.Response:
        bodies.append(RouteRequest.model_validate(json.loads(request.content)))
        return httpx.Response(200, json={"matches": [], "threshold": 0.4})

    pasted = "The first words. " + "x" * 90_000 + " The question?"
    async with httpx.AsyncClient(transport=httpx.MockTransport(router)) as client:
        for query in (Query(pasted, ["y" * 90_000] * 40), Query("Short?", ["", "Earlier."]), Query(" ")):
            await ask(client, Credential("token"), "http://router", query, ANYONE)
    long, short = bodies
    assert long.query.startswith("The first words. x")
    assert long.query.endswith("x The question?")
    assert len(long.earlier) == 16
    assert (short.query, short.earlier) == ("Short?", ["Earlier."])
