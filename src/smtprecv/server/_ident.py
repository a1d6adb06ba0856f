"""The name that a client's own machine gives to the owner of a connection (RFC 1413).

Its one rule: what comes back is a stranger's text, bounded in time and octets, and taken only if it is
a short line of printable ASCII.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final, final

import trio

from smtprecv.errors import ConfigError
from smtprecv.message import Client

_PORT: Final = 113
_MAX_LINE_SIZE: Final = 1000  # RFC 1413 section 4
_MAX_IDENT_SIZE: Final = 64

# RFC 1413 section 4: the ports, USERID or ERROR, the system and its character set, the user; blanks may stand
# around each. An ERROR tells of nobody.
_REPLY: Final = re.compile(
    rb"[ \t]*(?P<theirs>[0-9]{1,5})[ \t]*,[ \t]*(?P<ours>[0-9]{1,5})[ \t]*:[ \t]*USERID[ \t]*:[^:]*:(?P<user>[ -~\t]+)",
    re.IGNORECASE,
)


@final
class Ident:
    """A ClientLookup for ``client.ident``: asks the ident service of the client's machine.

    Asks from the address that the client connected to, as the service expects. None for no service,
    no answer within ``timeout`` seconds, an ERROR, an answer about other ports, and for a user that is not
    1 to 64 printable ASCII characters. Never raises.
    """

    def __init__(self, *, timeout: float = 5.0, port: int = _PORT) -> None:
        """Take the settings; ConfigError for a timeout of 0 seconds or less."""
        if timeout <= 0:
            msg = "the timeout of an ident lookup must be more than 0 seconds"
            raise ConfigError(msg)
        self._timeout: Final = timeout
        self._port: Final = port

    async def look_up(self, client: Client) -> str | None:
        """Ask for the owner of the client's end of the connection."""
        if client.address is None or client.local_address is None:
            return None
        with trio.move_on_after(self._timeout), suppress(OSError, trio.BrokenResourceError):
            query = f"{client.port},{client.local_port}\r\n".encode()
            return user_in(await self._ask(str(client.address), str(client.local_address), query), client)
        return None

    async def _ask(self, address: str, local_address: str, query: bytes) -> bytes:
        """Give the line that comes back, or what there is of it at the end of the connection."""
        async with await trio.open_tcp_stream(address, self._port, local_address=local_address) as stream:
            await stream.send_all(query)
            received = b""
            while b"\n" not in received and len(received) <= _MAX_LINE_SIZE:
                octets = await stream.receive_some(_MAX_LINE_SIZE)
                if not octets:
                    break
                received += octets
            return received.partition(b"\n")[0]


def user_in(line: bytes, client: Client) -> str | None:
    """Give the user that a reply names for just this connection, None if there is none."""
    match = _REPLY.fullmatch(line.removesuffix(b"\r"))
    if match is None or (int(match["theirs"]), int(match["ours"])) != (client.port, client.local_port):
        return None
    user = match["user"].decode("ascii").strip()
    return user if user.isprintable() and 0 < len(user) <= _MAX_IDENT_SIZE else None
