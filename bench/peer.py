"""What a receiver must be for it to be measured: the Protocol `Peer`, and `Running`, what one is while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


class Tls(Enum):
    """How a client comes to TLS."""

    NONE = "plain TCP"
    IMPLICIT = "TLS"
    STARTTLS = "STARTTLS"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens at `host` and `port`; `pid` is the process from which all of its others descend.

    `stored` counts the files that its mail has become; None for one that only accepts.
    """

    pid: int
    host: str
    port: int
    stored: Callable[[], int] | None = None
    tls: Tls = Tls.NONE

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT."""
        return f"{self.host}:{self.port}"


class Peer(Protocol):
    """A receiver that may be measured."""

    @property
    def name(self) -> str:
        """Its name in tables and on the command line."""
        ...

    def missing(self) -> str | None:
        """Say what it needs and has not here; None if it can run."""
        ...

    def running(self, folder: Path, connections: int = 0) -> AbstractContextManager[Running]:
        """Run it with all that it keeps in a new folder, until the context ends; Trouble if it does not start.

        Its settings are those it comes with, but for what stands in the way of measuring. `connections` is the number
        of those that it must take at one time from one address, where that is more than it would.
        """
        ...
