"""What can go wrong while the embedded stack starts, runs or stops."""

from __future__ import annotations


class StackError(Exception):
    """The embedded stack cannot carry out a request. The message has what to do next."""


class AlreadyRunning(StackError):
    """Another process runs the stack of this home folder."""


class PartFailed(StackError):
    """A server or service did not come up. The message ends with the last lines of its log."""


class ModelUnavailable(StackError):
    """The base model or the embedding model cannot be found or prepared."""
