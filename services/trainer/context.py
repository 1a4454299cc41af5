"""What the wings need of the running trainer: a view of `fleet_kit.service.Service` that each narrows to its own.

`Service` is invariant in its settings and parts. Here both are read only and therefore covariant: a wing names the
settings and parts that it reads, and takes every service that has at least those.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from nats.js import JetStreamContext

from fleet_kit.blobs import Blobs
from fleet_kit.cloudevents import Envelope
from fleet_kit.db import Pool
from fleet_kit.transaction import Transaction

SettingsT_co = TypeVar("SettingsT_co", covariant=True)
PartsT_co = TypeVar("PartsT_co", covariant=True)


class Context(Protocol[SettingsT_co, PartsT_co]):
    """The running trainer, as far as a wing reads it. See `Service` for each member."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> SettingsT_co: ...
    @property
    def parts(self) -> PartsT_co: ...
    @property
    def db(self) -> Pool: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def jetstream(self) -> JetStreamContext: ...

    def transaction(self, cause: Envelope | None = None) -> AbstractAsyncContextManager[Transaction]:
        """A database transaction whose events go out once it is committed."""
        ...
