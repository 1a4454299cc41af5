"""A job that names no id of its own has the event's."""

from datetime import UTC, datetime

import pytest

from fleet_events import v1
from fleet_kit.cloudevents import Envelope, read_envelope
from services.trainer.jobs.acceptance import job_id_of

pytestmark = pytest.mark.unit
REQUEST = v1.TrainingRequested(domain="shop")


def envelope(**headers: str) -> Envelope:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    stored = datetime(2026, 1, 31, 12, tzinfo=UTC)
    return read_envelope("lorafleet.v1.training.requested", named, REQUEST.to_json(), 41, stored)[0]


def test_an_id_of_the_requester_counts_from_any_sender() -> None:
    request = REQUEST.model_copy(update={"job_id": "mine"})
    assert job_id_of(request, envelope(ce_id="1", ce_source="shop")) == "mine"


def test_two_sources_that_number_their_events_from_one_get_two_jobs() -> None:
    ids = [job_id_of(REQUEST, envelope(ce_id="1", **source)) for source in ({}, {"ce_source": "a"}, {"ce_source": "b"})]
    assert ids[0] == "1"
    assert all(one.startswith("1-") for one in ids[1:])
    assert len(set(ids)) == 3


def test_an_event_without_an_id_names_its_job_by_where_and_when_it_was_stored() -> None:
    assert job_id_of(REQUEST, envelope()) == "sequence-41-1769860800000000"


def test_an_id_that_fits_into_no_object_name_is_written_as_its_digest() -> None:
    found = job_id_of(REQUEST, envelope(ce_id="orders/42"))
    assert len(found) == 64
    assert found == job_id_of(REQUEST, envelope(ce_id="orders/42")) != job_id_of(REQUEST, envelope(ce_id="orders/43"))
