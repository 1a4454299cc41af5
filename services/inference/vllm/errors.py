"""What one vLLM server did instead of answering."""


class VllmError(Exception):
    """What one server did instead of answering. Callers of the fleet read the message, so it names no address."""


class ServerAway(VllmError):
    """It cannot be reached, or it broke down on the way."""


class ServerFault(ServerAway):
    """It answered that it failed (5xx)."""


class Misconfigured(VllmError):
    """It answers, but cannot be driven as it was started."""


class NotServed(VllmError):
    """It does not know the model: an adapter that was not loaded, or not since the server was started."""


class Refused(VllmError):
    """It will not do this; its own words are the message."""
