"""A receiver of a few people's mail, as a whole program: whom it serves, what it refuses, and where mail goes.

Run it as ``python receiver.py 127.0.0.1:2525 folder``. SIGTERM and Ctrl-C let open transactions finish.
``smtprecv showqueue --queue folder/queue`` shows what could not be delivered yet, and why.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import trio

from smtprecv import (
    Attempt,
    Client,
    Config,
    Domain,
    EnhancedStatus,
    Entry,
    Envelope,
    Message,
    Rcpt,
    Recipient,
    Redirect,
    Reply,
    Server,
    SpoolIntake,
    address_of,
    listen,
    open_spool,
    run_queue,
)

HOST: Final = Domain("mx.example.com")
OURS: Final = Domain("example.com")
PEOPLE: Final = frozenset({"anna", "ben"})
ALIASES: Final[Mapping[str, Redirect]] = {
    "postmaster": Redirect.to("anna@example.com"),
    "staff": Redirect.to("anna@example.com", "ben@example.com"),
}

OK: Final = Reply(250, "ok")
DENIED: Final = Reply(550, "relaying denied", EnhancedStatus(5, 7, 1))
NOBODY: Final = Reply(550, "nobody has that name here", EnhancedStatus(5, 1, 1))
ANONYMOUS: Final = Reply(554, "a message must say who it is from", EnhancedStatus(5, 6, 0))


@final
@dataclass(frozen=True)
class Receiver:
    """The policy and the delivery of this receiver: one file for each message and person, below ``folder``."""

    folder: Path

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply | Redirect:
        """Serve our people, under their own names and others, and the postmaster, who may be named without a domain."""
        mailbox = rcpt.forward_path.mailbox
        name = mailbox.local_part.lower()
        is_our_postmaster = rcpt.forward_path.is_postmaster and mailbox.domain == HOST
        if mailbox.domain != OURS and not is_our_postmaster:
            return DENIED
        return ALIASES.get(name, OK if name in PEOPLE else NOBODY)

    async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
        """Refuse what has no From field, before it is queued."""
        header, _, _ = (await message.bytes()).partition(b"\r\n\r\n")
        return OK if b"\r\nfrom:" in b"\r\n" + header.lower() else ANONYMOUS

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        """Look for the file, so that a crash between a delivery and its record makes no second copy."""
        return self._file(entry, recipient).exists()

    async def deliver(self, attempt: Attempt) -> list[Reply]:
        """Write the files; what goes wrong is an exception, and all is tried again later."""
        octets = await attempt.message.bytes()
        for recipient in attempt.recipients:
            await trio.to_thread.run_sync(store, self._file(attempt.entry, recipient), octets)
        return [Reply(250, "stored") for _ in attempt.recipients]

    def _file(self, entry: Entry, recipient: Recipient) -> Path:
        return self.folder / recipient.forward_path.mailbox.local_part.lower() / entry.queue_id


def store(path: Path, octets: bytes) -> None:
    """Write a file that is whole and on disk when this returns, or not there: 250 is a promise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    for folder in path.parents[:3]:  # each may be new
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


async def drain_on_signal(server: Server, signals: AsyncIterator[int]) -> None:
    """Let the server end what has begun, and accept nothing more."""
    await anext(signals)
    server.drain()


async def main(address: str, folder: Path) -> None:
    """Receive and deliver, until told to stop."""
    receiver = Receiver(folder / "mail")
    config = Config(str(HOST), max_message_size=1_000_000)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_spool(folder / "queue") as spool, trio.open_nursery() as nursery:
            server = Server(SpoolIntake(spool), config=config, policy=receiver)
            nursery.start_soon(run_queue, spool, receiver)
            nursery.start_soon(drain_on_signal, server, signals)
            listeners = await listen(address)
            logging.info("listening on %s", ", ".join(map(address_of, listeners)))
            await server.serve(listeners)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
