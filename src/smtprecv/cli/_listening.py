"""The listeners that the arguments of ``serve`` name, each in its role.

Its one rule: all of them are opened, or none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import trio

from smtprecv.cli._arguments import Options
from smtprecv.cli._receiver import refuse_open_sockets, roles
from smtprecv.server import Listener, Role, address_of, listen


@final
@dataclass(frozen=True, slots=True)
class Listening:
    """Some listeners, their role, and what the log says of it."""

    listeners: Sequence[Listener]
    role: Role
    remark: str

    @property
    def lines(self) -> list[str]:
        """What the log says when they accept."""
        return [f"listening on {address_of(listener)}{self.remark}" for listener in self.listeners]


async def open_listeners(options: Options, stream: trio.abc.Stream | None = None) -> list[Listening]:
    """Open the listeners of all addresses; those of a worker are there already, and are taken over.

    OSError that names the address that cannot be listened on. ConfigError for sockets of others, ``stream``
    among them, where an address would have been refused.
    """
    opened: list[Listener] = []
    found: list[Listening] = []
    try:
        for addresses, role, remark in _roles(options):
            listeners: list[Listener] = []
            for address in addresses:
                listeners += (new := await _opened(address))
                opened += new
            found.append(Listening(listeners, role, remark))
        refuse_open_sockets(options, opened, stream)
    except BaseException:
        await _close(opened)
        raise
    if options.worker is not None:
        # What listens is a duplicate, and must be the last one here when it is closed.
        for number in (number for numbers in options.worker.sockets for number in numbers):
            os.close(number)
    return found


async def close_listeners(listening: Sequence[Listening]) -> None:
    """Close them all; done when cancelled, too."""
    await _close([listener for each in listening for listener in each.listeners])


async def _close(listeners: Sequence[Listener]) -> None:
    with trio.CancelScope(shield=True):
        for listener in listeners:
            await listener.aclose()


def _roles(options: Options) -> Iterator[tuple[Sequence[str], Role, str]]:
    if options.worker is None:
        yield from roles(options)
        return
    for numbers, (_, role, remark) in zip(options.worker.sockets, roles(options), strict=True):
        yield [f"fd:{number}" for number in numbers], role, remark


async def _opened(address: str) -> list[Listener]:
    try:
        return await listen(address)
    except OSError as error:
        text = f"cannot listen on {address}: {error.strerror or error}"
        raise OSError(error.errno, text) from error
