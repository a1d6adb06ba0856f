"""How a message is put on the wire: behind DATA with its dots stuffed, or in chunks that are counted.

One rule: no octet of a message is ever a command to the next hop. Behind DATA that holds only where every line ends
in CRLF: a bare CR or LF, which some servers take for a line end, is not sent there.
"""

from __future__ import annotations

from typing import final


@final
class BareLineEnd(Exception):
    """The message has a bare CR or LF, which may not stand behind DATA (RFC 5321 section 2.3.8)."""


@final
class DotStuffer:
    """Makes mail data for DATA of a message, however it is cut into pieces (RFC 5321 section 4.5.2)."""

    def __init__(self) -> None:
        """Begin a message."""
        self._is_line_start = True
        self._held = b""
        """A CR at the end of a piece, which waits for its LF."""

    def convert(self, octets: bytes) -> bytes:
        """Give the next piece; BareLineEnd if it can't be sent, and neither can what follows."""
        octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        octets = octets.removesuffix(b"\r")
        lines = octets.count(b"\r\n")
        if not lines == octets.count(b"\r") == octets.count(b"\n"):
            raise BareLineEnd
        if not octets:
            return b""
        stuffed = octets.replace(b"\r\n.", b"\r\n..")
        if self._is_line_start and octets.startswith(b"."):
            stuffed = b"." + stuffed
        self._is_line_start = octets.endswith(b"\r\n")
        return stuffed

    def end(self) -> bytes:
        """Give the end of the mail data, and of the last line where the message lacks it."""
        if self._held:
            raise BareLineEnd
        return b".\r\n" if self._is_line_start else b"\r\n.\r\n"


def bdat(octets: bytes, *, is_last: bool) -> bytes:
    """Give a chunk and the command before it (RFC 3030 section 2)."""
    return b"BDAT %d%s\r\n%s" % (len(octets), b" LAST" if is_last else b"", octets)
