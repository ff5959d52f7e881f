"""What can go wrong with the bus, one type a cause."""

from __future__ import annotations


class BusError(Exception):
    """Something about the bus failed."""


class BusUnavailableError(BusError):
    """The server can't be reached, refuses the login, or broke off; nothing is known of the last call."""


class BusTimeoutError(BusUnavailableError):
    """The server did not answer in time."""


class BusFullError(BusError):
    """The server takes no writes: no memory (readers are too far behind, or nothing trims) or no disk is left."""


class NotReplicatedError(BusError):
    """Stored, but not on a replica in time; if its server dies now, it may be lost."""


class RewoundError(BusError):
    """The bus does not stand where the worker left it: a replica that had not got all took over. Begin from there."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition}: the bus has forgotten what it had stored")
        self.partition = partition


class FencedError(BusError):
    """Another worker has claimed the partition; stop working on it."""

    def __init__(self, partition: int, epoch: int) -> None:
        super().__init__(f"partition {partition}: epoch {epoch} has been replaced by a later worker")
        self.partition = partition
        self.epoch = epoch


class ServerError(BusError):
    """A server that is a child of ours can't be started; the message says what to do."""
