"""What `model` means, and who may use it."""

from dataclasses import dataclass

import pytest

from inference.events import (
    BASE_REVISION,
    OTHER_REVISION,
    activated,
    adapter,
    approved,
    deactivated,
    registered,
    rejected,
)
from services.inference.catalogue import Catalogue, CatalogueEvent
from services.inference.errors import BadRequest, CannotServe, Incompatible, NotActive, UnknownModel
from services.inference.resolution import Auto, Base, Mix, resolve, visible

BASE = Base("tiny", BASE_REVISION)
BASES = (BASE,)
V1, V2, FOREIGN = adapter("1.0.0"), adapter("2.0.0"), adapter("1.0.0", base=OTHER_REVISION, domain="tax")


@dataclass(frozen=True)
class Asker:
    scopes: frozenset[str] = frozenset({"generate"})
    domains: frozenset[str] = frozenset({"*"})


ANYONE = Asker()
EVALUATOR = Asker(scopes=frozenset({"generate", "candidates"}))
TAX_ONLY = Asker(domains=frozenset({"tax"}))


def known(*events: CatalogueEvent) -> Catalogue:
    catalogue = Catalogue()
    for event in events:
        catalogue = catalogue.apply(event)
    return catalogue


SWITCHED = known(registered(V1, 1), activated(V1, 2), registered(V2, 3), activated(V2, 4), deactivated(V1, 5))


def test_the_base_models_name_is_the_base_model() -> None:
    assert resolve("tiny", SWITCHED, BASES, ANYONE) == BASE


def test_auto_is_left_to_the_router() -> None:
    assert resolve("auto", SWITCHED, BASES, ANYONE) == Auto()


@pytest.mark.requirement("AM-3.1")
def test_an_active_version_is_found_by_its_id_and_by_its_family() -> None:
    assert resolve("law-lora-v2.0.0", SWITCHED, BASES, ANYONE) == V2
    assert resolve("law-lora", SWITCHED, BASES, ANYONE) == V2


@pytest.mark.requirement("AM-3.2")
def test_a_deactivated_version_is_refused_and_the_active_one_named() -> None:
    with pytest.raises(NotActive) as caught:
        resolve("law-lora-v1.0.0", SWITCHED, BASES, ANYONE)
    assert caught.value.extra["active_version"] == "law-lora-v2.0.0"


@pytest.mark.requirement("AM-3.2")
def test_a_family_without_an_active_version_is_refused() -> None:
    with pytest.raises(NotActive, match="no version of its family is active"):
        resolve("law-lora", known(activated(V1, 1), deactivated(V1, 2)), BASES, ANYONE)


@pytest.mark.parametrize("events", [[registered(V1, 1)], [registered(V1, 1), rejected(V1, 2)]])
@pytest.mark.parametrize("model", ["law-lora-v1.0.0", "law-lora"])
def test_a_candidate_does_not_exist_for_ordinary_callers(events: list[CatalogueEvent], model: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve(model, known(*events), BASES, ANYONE)
    assert "law-lora" not in caught.value.message.removeprefix(f"model {model!r}")


def test_the_evaluator_reaches_a_candidate_by_its_exact_id_alone() -> None:
    assert resolve("law-lora-v1.0.0", known(registered(V1, 1)), BASES, EVALUATOR) == V1
    with pytest.raises(UnknownModel):
        resolve("law-lora", known(registered(V1, 1)), BASES, EVALUATOR)


def test_an_adapter_beyond_the_callers_domains_reads_like_none_even_to_the_evaluators_scope() -> None:
    narrow = Asker(scopes=frozenset({"generate", "candidates"}), domains=frozenset({"tax"}))
    for model, asker in (("law-lora", TAX_ONLY), ("law-lora@2.0.0", TAX_ONLY), ("law-lora-v1.0.0", narrow)):
        with pytest.raises(UnknownModel) as foreign:
            resolve(model, SWITCHED, BASES, asker)
        with pytest.raises(UnknownModel) as absent:
            resolve(model, known(), BASES, asker)
        assert foreign.value.body() == absent.value.body()


def test_a_caller_of_another_domain_learns_nothing_of_a_deactivated_version() -> None:
    with pytest.raises(UnknownModel):
        resolve("law-lora-v1.0.0", SWITCHED, BASES, TAX_ONLY)


@pytest.mark.requirement("AM-4.2")
def test_an_adapter_of_another_base_model_is_refused_with_compatible_ones_suggested() -> None:
    catalogue = known(activated(FOREIGN, 1), activated(V2, 1))
    with pytest.raises(Incompatible) as caught:
        resolve("tax-lora", catalogue, BASES, ANYONE)
    assert caught.value.extra["compatible_adapters"] == ["law-lora-v2.0.0"]
    assert OTHER_REVISION[:12] in caught.value.message
    assert BASE_REVISION[:12] in caught.value.message


def test_an_artifact_other_than_the_approved_one_is_refused() -> None:
    catalogue = known(approved(V1, 2, sha256="d" * 64), activated(V1, 3))
    with pytest.raises(CannotServe) as caught:
        resolve("law-lora", catalogue, BASES, ANYONE)
    assert caught.value.code == "artifact_not_approved"


def test_visible_models_are_the_active_compatible_ones_in_reach() -> None:
    catalogue = known(activated(FOREIGN, 1), activated(V1, 2), activated(V2, 3))
    assert visible(catalogue, BASES, ANYONE) == [V2]
    assert visible(catalogue, BASES, EVALUATOR) == [V1, V2]
    assert visible(catalogue, BASES, TAX_ONLY) == []


TAX = adapter("1.0.0", domain="tax")
BOTH = known(registered(V2, 3), activated(V2, 4), registered(TAX, 1), activated(TAX, 2))


@pytest.mark.requirement("LI-8.1", "LI-8.3")
@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("law-lora:0.7+tax-lora:0.3", ((V2, 0.7), (TAX, 0.3))),
        ("law-lora@2.0.0:0.5 + tax-lora-v1.0.0", ((V2, 0.5), (TAX, 1.0))),
        ("tax-lora:1.5", ((TAX, 1.5),)),
    ],
)
def test_a_weighted_set_names_adapters_as_single_requests_do(model: str, parts: tuple[object, ...]) -> None:
    assert resolve(model, BOTH, BASES, ANYONE) == Mix(parts)  # type: ignore[arg-type]


def test_a_version_is_found_after_its_family() -> None:
    assert resolve("law-lora@2.0.0", BOTH, BASES, ANYONE) == V2


@pytest.mark.parametrize(
    "model",
    [
        "law-lora:0+tax-lora",
        "law-lora:nan+tax-lora",
        "law-lora:-1",
        "law-lora:2.5",
        "law-lora:much",
        "law-lora+",
        "law-lora+law-lora",
        "a+b+c+d",
        "law-lora:0.5+auto:0.5",
    ],
)
def test_a_set_that_is_none_is_refused_with_an_example(model: str) -> None:
    with pytest.raises(BadRequest, match=r"law-lora@1\.0\.0:0\.7\+tax-lora:0\.3") as error:
        resolve(model, BOTH, BASES, ANYONE)
    assert (error.value.code, error.value.param) == ("invalid_adapter_set", "model")


def test_a_base_model_in_a_set_is_refused_as_what_it_is() -> None:
    with pytest.raises(BadRequest, match=f"{BASES[0].name!r} is no adapter"):
        resolve(f"law-lora:0.5+{BASES[0].name}:0.5", BOTH, BASES, ANYONE)


def test_every_adapter_of_a_set_must_be_in_reach() -> None:
    with pytest.raises(UnknownModel, match="law"):
        resolve("tax-lora:0.5+law-lora:0.5", BOTH, BASES, TAX_ONLY)
    with pytest.raises(UnknownModel):
        resolve("tax-lora:0.5+ghost:0.5", BOTH, BASES, ANYONE)
