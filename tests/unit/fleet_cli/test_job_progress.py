"""A watched training: its events, how they are shown, and that an interrupted stream continues where it was."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from fleet_cli.follow import job_stream as following
from fleet_cli.follow.job_progress import JobProgress, read_event
from fleet_cli.follow.job_progress_view import JobProgressView, line, numbers
from lorafleet.clients import FleetClient
from lorafleet.errors import FleetError, Unreachable
from lorafleet.home import FleetHome
from services.trainer.jobs.domain import JobState
from tests.unit.fleet_cli import recorded
from tests.unit.fleet_cli.conftest import Lorafleet, Scripted

pytestmark = pytest.mark.unit

RUNNING = recorded.job_state(JobState.RUNNING, 20)
DONE = recorded.job_state(JobState.SUCCEEDED, 20)
DIVERGED = "hyperparameters.learning_rate: training diverged at step 3"
FAILED = recorded.job_state(JobState.FAILED, 20, DIVERGED)
PATH = "/v1/jobs/job-1/metrics/stream"


def step(number: int) -> dict[str, object]:
    return recorded.job_step(
        number, learning_rate=5e-4, gradient_norm=1.25, tokens=90, seconds=0.5, peak_memory_bytes=512 * 2**20
    )


validation = recorded.job_validation


def stream(*events: dict[str, object]) -> bytes:
    lines = [f"event: {one['kind']}\ndata: {json.dumps(one)}\nid: 0.0\n\n" for one in events]
    return (": ping\n\n" + "".join(lines)).encode()


WHOLE = (RUNNING, *(step(one) for one in range(1, 11)), validation(10), *(step(one) for one in range(11, 21)), DONE)


@pytest.mark.requirement("TP-4.1")
def test_a_job_is_watched_with_all_its_numbers_a_line_for_every_tenth(against: Lorafleet, service: Scripted) -> None:
    service.answer(f"GET {PATH}", stream(*WHOLE), kind="text/event-stream")
    answered = against("jobs", "watch", "job-1")
    assert answered.exit_code == 0, answered.output
    lines = answered.stdout.splitlines()
    assert lines[0] == "running"
    assert "step 4/20 loss 0.750 · lr 5.0e-04 · norm 1.25 · 180 tokens/s · 512 MiB" in lines
    assert "validation at step 10: loss 1.5000, the best · accuracy 0.75" in lines
    assert sum(one.startswith("step") for one in lines) == 11
    assert lines[-1] == "succeeded"
    assert service.requests[0].headers["last-event-id"] == "0.0"


@pytest.mark.requirement("TP-4.1")
def test_watching_a_job_that_failed_says_why_and_ends_with_4(against: Lorafleet, service: Scripted) -> None:
    service.answer(f"GET {PATH}", stream(RUNNING, step(1), FAILED), kind="text/event-stream")
    answered = against("jobs", "watch", "job-1")
    assert answered.exit_code == 4
    assert answered.stdout.splitlines()[-1].startswith("failed: hyperparameters.learning_rate")


def test_watching_with_json_gives_every_event_on_a_line(against: Lorafleet, service: Scripted) -> None:
    service.answer(f"GET {PATH}", stream(*WHOLE), kind="text/event-stream")
    answered = against("jobs", "watch", "job-1", "--json")
    assert [json.loads(one)["kind"] for one in answered.stdout.splitlines()] == [one["kind"] for one in WHOLE]


@pytest.mark.requirement("TP-5.2")
def test_what_a_job_left_is_saved_whole_or_not_at_all(against: Lorafleet, service: Scripted, tmp_path: Path) -> None:
    service.answer("GET /v1/jobs/job-1/exports/int8", b"arrow bytes", kind="application/octet-stream")
    file = tmp_path / "adapter.arrow"
    saved = against("jobs", "fetch", "job-1", "int8", "-o", str(file))
    assert (saved.exit_code, file.read_bytes()) == (0, b"arrow bytes")
    missing = against("jobs", "fetch", "job-1", "peft", "-o", str(tmp_path / "peft.tar"))
    assert missing.exit_code == 2
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["adapter.arrow"]


def test_watching_a_job_that_is_not_there_is_a_refusal(against: Lorafleet) -> None:
    answered = against("jobs", "watch", "job-1")
    assert answered.exit_code == 2, answered.output
    assert "no /v1/jobs/job-1" in answered.output


@dataclass
class Cut:
    """A trainer whose streams end early: one body for each request, the places that were asked for."""

    bodies: list[bytes]
    places: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def cut() -> Iterator[Cut]:
    trainer = Cut([stream(*WHOLE[:5]), b"", stream(*WHOLE[5:13]), stream(*WHOLE[13:])])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            trainer.places.append(self.headers["Last-Event-ID"])
            body = trainer.bodies.pop(0)
            if not body:
                self.close_connection = True  # as a process does that is killed
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    trainer.url = f"http://127.0.0.1:{server.server_port}"
    yield trainer
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(cut: Cut, fresh_home, monkeypatch: pytest.MonkeyPatch) -> FleetClient:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LORAFLEET_TRAINER_URL", cut.url)
    monkeypatch.setenv("LORAFLEET_TOKEN", "a-token")
    monkeypatch.setattr(following, "_RETRY_SECONDS", 0.0)
    return FleetClient(FleetHome.find(fresh_home))


@pytest.mark.requirement("TP-3.1")
def test_a_stream_that_is_cut_goes_on_behind_its_last_event(cut: Cut, client: FleetClient) -> None:
    events = list(following.follow_job(client, "job-1"))
    assert [one.kind for one in events] == [one["kind"] for one in WHOLE]
    assert [one.step for one in events if one.kind == "step"] == list(range(1, 21))
    assert cut.places == ["0.0", "4.0", "4.0", "11.10"]


def test_a_trainer_that_stays_away_is_given_up_and_one_that_never_was_at_once(
    cut: Cut, client: FleetClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_MAX_TRIES", 3)
    cut.bodies[:] = [stream(RUNNING), b"", b"", b"", b""]
    with pytest.raises(Unreachable):
        list(following.follow_job(client, "job-1"))
    assert len(cut.places) == 4
    cut.bodies[:] = [b""]
    with pytest.raises(Unreachable):
        list(following.follow_job(client, "job-1"))
    assert len(cut.places) == 5


def test_a_terminal_shows_a_bar_with_the_newest_numbers_and_no_line_for_a_step() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=160)
    progress = JobProgress()
    with JobProgressView(console) as view:
        for one in WHOLE[:-1]:
            event = read_event(one)
            progress = progress.after(event)
            view.show(event, progress)
        view._bars.refresh()
    text = shown.getvalue()
    assert "20/20" in text
    assert "validation 1.500" in text
    assert "ETA" in text
    assert "step 4/20" not in text
    assert progress.last_event_id == "20.10"
    assert not progress.final


def test_unknown_numbers_are_left_out_and_a_foreign_event_is_a_fault() -> None:
    assert numbers({"loss": 2.0, "validation_loss": None, "samples": 3}) == "loss 2.000"
    assert line(read_event(step(3)), 0).startswith("step 3 loss 1.000")
    with pytest.raises(FleetError, match="unexpected event"):
        read_event({"kind": "weather"})
