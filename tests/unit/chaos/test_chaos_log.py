"""A chaos run counts on where the last one in its folder ended, whatever ended that."""

from pathlib import Path

from tests.e2e.chaos_log import ChaosLog, Round, kills, summary


def test_a_later_run_goes_on_counting(tmp_path: Path) -> None:
    first = ChaosLog(tmp_path / "state")
    first.add(Round("r0", {"nats": 3, "trainer": 2}, facts=40, loops=3))
    first.expected = {"versions": 1}
    second = ChaosLog(tmp_path / "state")
    second.add(Round("r1", {"s3": 4}, lost=1, duplicated=2, different=3, notes=("one is missing",)))
    assert second.expected == {"versions": 1}
    assert [one.is_clean for one in second.rounds] == [True, False]
    assert second.rounds[1].notes == ("one is missing",)
    assert kills(second.rounds) == 9
    assert summary(second.rounds) == "9 kills, 1 lost, 2 duplicated, 3 different final states"


def test_a_line_that_was_cut_short_is_no_round(tmp_path: Path) -> None:
    log = ChaosLog(tmp_path)
    log.add(Round("r0", {"nats": 1}))
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"name": "r1", "kills": {"na')
    assert [one.name for one in log.rounds] == ["r0"]
    log.add(Round("r2", {"nats": 1}))
    assert [one.name for one in log.rounds] == ["r0", "r2"]
