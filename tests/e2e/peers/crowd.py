"""A crowd of bad clients, as a program: `crowd.py HOST PORT`, which goes on until its standard input ends.

Some send an octet a second, some nothing at all, and some connect again and again from one address that has
more than enough. The first line that it writes says that all are there, and that one was refused; the second, at its
end, how many still were, and how many were refused.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from contextlib import suppress
from itertools import cycle
from typing import Final

import trio

DRIPPING: Final = 500
IDLE: Final = 1000
PER_ADDRESS: Final = 50
"""So many come from one address, and from one network: the limit of the server does not keep them out."""
FLOODING: Final = 8
FLOOD_PAUSE: Final = 0.04
"""At most so many connections at a time, and 200 in a second: the test is of the server, not of the machine."""
NICENESS: Final = 10

DRIP: Final = b"EHLO slow.example.com\r\nMAIL FROM:<anna@example.com>\r\nRCPT TO:<slow@example.org>\r\nDATA\r\n"


class Crowd:
    """All of them, and who of them is connected."""

    def __init__(self, host: str, port: int) -> None:
        self._where: Final = (host, port)
        self._connected: Final = Counter[str]()
        self._refused = 0
        self._is_refused: Final = trio.Event()

    async def run(self) -> None:
        """Connect everybody, flood, and tell."""
        async with trio.open_nursery() as nursery:
            for number in range(DRIPPING + IDLE):
                behave = self._drip if number < DRIPPING else self._idle
                await nursery.start(behave, f"127.{1 + number // PER_ADDRESS}.0.1")
            full = "127.100.0.1"
            for _ in range(FLOODING):
                nursery.start_soon(self._flood, full)
            await self._is_refused.wait()
            sys.stdout.write("all are there\n")
            sys.stdout.flush()
            await trio.to_thread.run_sync(sys.stdin.read)
            sys.stdout.write(f"{self._connected['drip']} {self._connected['idle']} {self._refused}\n")
            nursery.cancel_scope.cancel()

    async def _connect(self, source: str) -> trio.SocketStream:
        connection = trio.socket.socket()
        await connection.bind((source, 0))
        await connection.connect(self._where)
        return trio.SocketStream(connection)

    async def _idle(self, source: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        stream = await self._connect(source)
        assert (await stream.receive_some()).startswith(b"220 ")
        self._connected["idle"] += 1
        task_status.started()
        await stream.receive_some()
        self._connected["idle"] -= 1

    async def _drip(self, source: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        stream = await self._connect(source)
        self._connected["drip"] += 1
        task_status.started()
        for octet in cycle(DRIP):
            await stream.send_all(bytes([octet]))
            await trio.sleep(1)

    async def _flood(self, source: str) -> None:
        """Keep what is let in, and go on."""
        kept: list[trio.SocketStream] = []
        while True:
            stream = await self._connect(source)
            with suppress(trio.BrokenResourceError):
                if (await stream.receive_some()).startswith(b"220 "):
                    kept.append(stream)
                else:
                    self._refused += 1
                    self._is_refused.set()
                    await stream.aclose()
            await trio.sleep(FLOOD_PAUSE)


if __name__ == "__main__":
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    trio.run(Crowd(sys.argv[1], int(sys.argv[2])).run)
