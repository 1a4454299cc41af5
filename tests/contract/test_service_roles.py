"""What services publish, consume and follow is written down once, in the topology; every other place is made from it."""

import shutil
from pathlib import Path
from typing import get_args

import pytest

from fleet_events import catalogue, v1
from fleet_events.service_roles import in_docstring, in_readme
from fleet_events.topology import SERVICES, consumers_of, followed_by
from services.inference.catalogue import CatalogueEvent

pytestmark = pytest.mark.unit

README = "README.md"
REGISTRY = "services/registry/__init__.py"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything that is made from the topology."""
    for path in catalogue.documents():
        copy = tmp_path / path.relative_to(catalogue.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    monkeypatch.setattr(catalogue, "ROOT", tmp_path)
    monkeypatch.setattr(catalogue, "DOCS", tmp_path / "docs")
    return tmp_path


def test_the_committed_documents_are_those_of_the_topology_of_today(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert catalogue.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "there", "instead"),
    [
        (README, "EvaluationScored, EvaluationFailed, AnswerJudged, ApiKeysUsed", "EvaluationScored, ApiKeysUsed"),
        (
            README,
            "| router | the routing index | SubjectErased, ApiKeysUsed",
            "| router | the routing index | AdapterLoaded",
        ),
        (REGISTRY, "Rejected, ", ""),
        (REGISTRY, "Approved, ", "Approved, AdapterLoaded, "),
        (
            "services/router/__init__.py",
            "\nFollows AdapterActivated, AdapterDeactivated, ApiKeyCreated, ApiKeyRevoked, TokenRevoked.",
            "",
        ),
        ("docs/events.md", "| router, inference |", "| router |"),
        ("docs/asyncapi.json", "inferenceFollowsApproved", "inferenceHearsApproved"),
    ],
)
def test_a_document_that_disagrees_fails_the_check_by_its_name_and_is_made_right_again(
    checkout: Path, capsys: pytest.CaptureFixture[str], file: str, there: str, instead: str
) -> None:
    right = (checkout / file).read_text()
    assert there in right
    (checkout / file).write_text(right.replace(there, instead))
    assert catalogue.main(["--check"]) == 1
    assert f"these differ from the topology: {file};" in capsys.readouterr().err
    assert catalogue.main([]) == 0
    assert (checkout / file).read_text() == right


def test_a_readme_or_docstring_without_a_place_for_them_is_refused_with_what_is_wanted(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / REGISTRY).write_text('"""Registry."""\n')
    assert catalogue.main(["--check"]) == 1
    assert "needs one paragraph of this form:\nPublishes SubjectErased, TrainingRequested" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must stand once between"):
        in_readme("# Lorafleet\n")
    with pytest.raises(ValueError, match="services/router"):
        in_docstring('"""Router.\n\nConsumes A.\n\nFollows B.\n"""\n', "router")


def test_the_text_around_the_paragraph_stays() -> None:
    made = in_docstring('"""Router: which.\n\nConsumes nothing.\n\nA request\'s way: Consumes.\n"""\n', "router")
    assert made.startswith('"""Router: which.\n\nPublishes SubjectErased, ApiKeysUsed.\nConsumes FeedbackRecorded, ')
    assert made.endswith('\n\nA request\'s way: Consumes.\n"""\n')


def test_a_projection_applies_every_event_that_its_service_follows() -> None:
    assert set(followed_by("inference").events) == {*get_args(CatalogueEvent), v1.PolicyChanged}
    # The router's replay must come to what its handlers make of the same events. What it learns from is no projection.
    learned_from = {v1.FeedbackRecorded, v1.GenerationRecorded, v1.SubjectForgotten}
    assert set(followed_by("router").events) == {row.event for row, _ in consumers_of("router")} - learned_from


def test_no_source_file_but_the_topology_names_a_subject_of_an_event() -> None:
    root = Path(catalogue.__file__).parents[2]
    files = [path for folder in ("libs", "services", "benchmarks") for path in (root / folder).rglob("*.py")]
    named = [str(path.relative_to(root)) for path in files if "lorafleet.v1." in path.read_text()]
    assert named == ["libs/fleet_events/topology.py"]
    assert {service for service in SERVICES if followed_by(service).events} == {"router", "inference"}


def test_every_service_follows_who_may_call_and_nothing_else_under_that_filter() -> None:
    for service in SERVICES:
        access = followed_by(service, "access")
        assert set(access.events) == {v1.ApiKeyCreated, v1.ApiKeyRevoked, v1.TokenRevoked}
        assert access.subjects.endswith(".access.>")
