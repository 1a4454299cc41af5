"""Pages without their services: escaping, what they bring along, and how samples stand side by side."""

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import services.console
from lorafleet import calls
from lorafleet.responses import EvaluationDetail
from services.console.assets import ASSETS
from services.console.feed import Shown
from services.console.pages.moment import _whole
from services.console.pages.review import side_by_side
from services.console.rendering import POLICY, changed, fragment, moment, number

pytestmark = pytest.mark.unit
CONSOLE = Path(services.console.__file__).parent
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))


def judged(**scores: float | None) -> EvaluationDetail:
    results = [{"sample_id": name, "overall": score} for name, score in scores.items()]
    return EvaluationDetail.model_validate({"evaluation_id": "e", "results": results})


def test_samples_stand_beside_those_of_the_active_version_worst_first_and_unjudged_before_all() -> None:
    found = side_by_side(judged(a=90, b=20, c=None, d=50), judged(a=80, b=60, d=None))
    assert [one.candidate.sample_id for one in found] == ["c", "b", "d", "a"]
    assert [one.difference for one in found] == [None, -40, None, 10]
    assert all(one.active is None for one in side_by_side(judged(a=1), None))


def test_markup_in_what_is_shown_stays_text() -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    one = Shown(1, evil, "s", evil, datetime(2026, 1, 2, tzinfo=UTC), evil, evil, evil, evil, evil)
    row = fragment("live_row.html", one=one)
    assert "<script" not in row
    assert "<img" not in row
    assert "&lt;script&gt;" in row


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_brings_a_script_a_style_or_another_host(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=|javascript:|\|\s*safe\b|https?://", text)


def test_the_policy_permits_no_inline_script_and_no_frame() -> None:
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "frame-ancestors 'none'" in POLICY


def test_vendored_files_are_those_of_the_named_packages_with_their_licences() -> None:
    vendor = CONSOLE / "assets" / "vendor"
    packages = json.loads((vendor / "packages.json").read_text())
    named = {one["file"]: one["sha256"] for package in packages for one in package["files"]}
    there = {path.name for path in vendor.iterdir()} - {"packages.json"}
    assert there == set(named)
    assert {name: hashlib.sha256((vendor / name).read_bytes()).hexdigest() for name in named} == named
    for package in packages:
        assert package["integrity"].startswith("sha512-")
        assert any(one["file"].endswith("LICENSE") for one in package["files"])


def test_a_page_and_all_it_brings_weigh_less_than_300_kb() -> None:
    assert sum(len(asset.content) for asset in ASSETS.values()) < 200_000


def test_a_path_of_a_file_changes_with_its_content() -> None:
    asset = ASSETS["console.css"]
    assert hashlib.sha256(asset.content).hexdigest()[:16] in asset.path


def test_numbers_times_and_queries_are_written_for_people() -> None:
    assert [number(one) for one in (None, 3, 1234567, 2.0, 2.345)] == ["–", "3", "1,234,567", "2", "2.3"]
    assert moment("2026-01-02T04:04:05.6+01:00") == "2026-01-02 03:04:05"
    assert moment(None) == ""
    assert changed({"sort": "score", "text": "a b"}, offset=50, sort="") == "text=a+b&offset=50"


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        ("2026-11-03T09:30", "2026-11-03T09:30:00Z"),
        ("2026-11-03T09:30:05", "2026-11-03T09:30:05Z"),
        ("2026-11-03T09:30:05Z", "2026-11-03T09:30:05Z"),
        ("2026-11-03T09:30:05+02:00", "2026-11-03T09:30:05+02:00"),
        ("2026-11-03T09:30:05-02:00", "2026-11-03T09:30:05-02:00"),
    ],
)
def test_a_time_of_a_form_is_taken_as_utc(sent: str, whole: str) -> None:
    assert _whole(sent) == whole


@pytest.mark.parametrize("name", [".", "..", "../x", "a/b", "a?b#c"])
def test_a_name_stays_one_segment_of_a_services_path(name: str) -> None:
    request = calls.adapter(name).request("http://registry", "t")
    assert request.url.raw_path.startswith(b"/v1/adapters/")
    assert request.url.raw_path.count(b"/") == 3
    assert request.url.raw_path.removeprefix(b"/v1/adapters/") not in (b"", b".", b"..")
