"""The errors of the client and the command line, each with its exit code.

0 success, 1 something failed (a server, the network), 2 the input was wrong, 3 a human has to decide,
4 the adapter was rejected or its training failed.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `lorafleet`."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    PENDING_REVIEW = 3
    REJECTED = 4


class FleetError(Exception):
    """Base of all errors: one plain line for the user, and the exit code of the command."""

    code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.details = details
        """Lines that help to find the cause, such as the end of a log."""


class BadInput(FleetError):
    """The user's input is wrong; the message names the option, its value and what would be right."""

    code = ExitCode.BAD_INPUT

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option = option


class ServiceError(FleetError):
    """A service answered with an error: its problem+json (RFC 9457) in one line."""

    # The statuses that only the caller's input can cause; 401, 403, 409 and 429 depend on the fleet's state.
    INPUT_STATUSES = frozenset({400, 404, 406, 411, 413, 414, 415, 422})

    def __init__(self, service: str, status: int, title: str, detail: str = "", field: str = "") -> None:
        where = f" ({field})" if field and field not in detail else ""
        text = f"{title}: {detail}" if title and detail and title not in detail else detail or title
        super().__init__(f"{service} answered {status}: {text}{where}")
        self.service = service
        self.status = status
        self.field = field
        if status in self.INPUT_STATUSES:
            self.code = ExitCode.BAD_INPUT


class Unreachable(FleetError):
    """A service or server does not answer at all."""

    def __init__(self, what: str, url: str, reason: str) -> None:
        super().__init__(f"{what} does not answer at {url} ({reason}); is the fleet running? (`lorafleet up`)")
