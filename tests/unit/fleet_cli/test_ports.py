import random
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fleet_cli.stack import ports
from fleet_cli.stack.ports import LOOPBACK, choose, release

CLAIM = "import sys; from fleet_cli.stack.ports import choose; print(choose(['s3'], {'s3': int(sys.argv[1])})['s3'])"
"""Prints the port that another process gets when its server had this one before."""


@pytest.fixture
def claimed() -> Iterator[int]:
    port = choose(["s3"], {})["s3"]
    yield port
    release([port])


def in_another_process(before: int) -> int:
    command = [sys.executable, "-c", CLAIM, str(before)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_chosen_port_on_which_nothing_listens_yet_is_not_chosen_by_another_process(claimed: int) -> None:
    assert in_another_process(claimed) != claimed


def test_a_chosen_port_is_not_chosen_again_by_the_same_process(claimed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([claimed, claimed + 1 if claimed + 1 in ports._RANGE else claimed - 1])
    monkeypatch.setattr(random, "choice", lambda _: next(offered))

    (port,) = choose(["s3"], {}).values()

    release([port])
    assert port != claimed


def test_a_released_port_is_the_one_that_its_name_had_before(claimed: int) -> None:
    release([claimed])

    assert in_another_process(claimed) == claimed
    assert choose(["s3"], {"s3": claimed}) == {"s3": claimed}


def test_a_claim_leaves_the_port_to_the_server_that_it_was_chosen_for(claimed: int) -> None:
    with socket.create_server((LOOPBACK, claimed)) as server:
        assert server.getsockname()[1] == claimed


def test_a_port_on_which_a_server_listens_is_not_chosen(claimed: int) -> None:
    release([claimed])
    with socket.create_server((LOOPBACK, claimed)):
        (port,) = choose(["s3"], {"s3": claimed}).values()

    release([port])
    assert port != claimed
