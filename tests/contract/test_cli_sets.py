"""The command line runs without the services: the sets of words that it offers are theirs all the same."""

from typing import get_args

import pytest

from fleet_cli.commands.adapters import Status as VersionStatus
from fleet_cli.commands.answers import FeedbackState
from fleet_cli.commands.convert import Level
from fleet_cli.commands.jobs import State
from fleet_events.v1 import ExportKind
from lora_core.interop.gguf import Quantisation
from services.registry.family import Status
from services.trainer.datasets.answers.answer import State as AnswerState
from services.trainer.jobs.domain import JobState

pytestmark = pytest.mark.unit


def test_the_states_of_a_job_are_the_trainers() -> None:
    assert list(State) == list(JobState)


def test_the_states_of_feedback_on_an_answer_are_the_trainers() -> None:
    assert list(FeedbackState) == list(AnswerState)


def test_the_states_of_a_version_are_the_registrys() -> None:
    assert list(VersionStatus) == list(Status)


def test_the_levels_of_a_conversion_are_the_librarys_and_those_of_exports() -> None:
    assert set(Level) - {Level.F16} == set(get_args(Quantisation))
    assert {f"gguf-{level}" for level in get_args(Quantisation)} == set(ExportKind) & {f"gguf-{one}" for one in Level}
