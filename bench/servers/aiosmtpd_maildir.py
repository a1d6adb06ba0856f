"""A receiver that is compared with: aiosmtpd, a file for each message, on disk before the 250.

`python bench/servers/aiosmtpd_maildir.py MAILDIR` listens on a free port of loopback and says on which.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from pathlib import Path
from typing import Final

from aiosmtpd.smtp import SMTP, Envelope, Session

MOST: Final = 64 * 2**20
"""Octets of a message; by default it takes 32 MiB, and what is measured is larger."""
BACKLOG: Final = 4096


class Maildir:
    """An aiosmtpd handler."""

    def __init__(self, folder: Path) -> None:
        """Make the Maildir."""
        self._folder = folder
        self._numbers = count()
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Write, fsync, rename, fsync the folder; as smtprecv's Maildir does it, LF line ends included."""
        del server, session
        name = str(next(self._numbers))
        new = self._folder / "new"
        with (self._folder / "tmp" / name).open("wb") as file:
            file.write((envelope.original_content or b"").replace(b"\r\n", b"\n"))
            file.flush()
            os.fsync(file.fileno())
        (self._folder / "tmp" / name).rename(new / name)
        descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
        return "250 stored"


async def main(folder: str) -> None:
    """Serve until killed."""
    handler = Maildir(Path(folder))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, data_size_limit=MOST), "127.0.0.1", 0, backlog=BACKLOG)
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
