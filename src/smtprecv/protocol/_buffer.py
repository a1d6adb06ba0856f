"""Command lines, cut from the stream of octets.

One rule: a line ends with CRLF and with nothing else. A line that is too long or holds a control
character (a bare CR or LF among them) comes out as Rejected; of one that is too long, only the first
octets are ever kept, so that memory is bounded. How the input is cut into reads changes nothing. Who begins a
line with an octet that begins no text (a TLS handshake, say) is told at once that this is SMTP.
"""

from __future__ import annotations

import re
from typing import Final, final

from smtprecv.protocol._events import Rejected
from smtprecv.protocol._refusal import BAD_OCTETS, LINE_TOO_LONG, NOT_SMTP

MAX_REJECTED_SIZE: Final = 512
"""Octets of a refused line that are kept, for the log."""

_FOREIGN: Final = frozenset({*range(0x20), *range(0x7F, 0x100)} - {*b"\t\r\n"})
"""Octets that no text begins with."""
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


@final
class LineReader:
    """Takes command lines of at most ``max_line_size`` octets, CRLF included, from the front of ``buffer``."""

    __slots__ = ("_buffer", "_head", "_max_size", "_searched")

    def __init__(self, buffer: bytearray, max_line_size: int) -> None:
        """Read from ``buffer``, which others may append to, and read from between lines."""
        self._buffer = buffer
        self._max_size = max_line_size - len(b"\r\n")
        self._searched = 0
        """How far the buffer is known to hold no CRLF."""
        self._head: bytes | None = None
        """How the line begins whose excess is being dropped."""

    def next_line(self) -> bytes | Rejected | None:
        """Take the next line, without its CRLF; None if it is not all there."""
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[0] in _FOREIGN and self._head is None:
            del buffer[0]
            return Rejected(b"", NOT_SMTP)
        end = buffer.find(b"\r\n", self._searched)
        if end < 0:
            self._searched = max(len(buffer) - 1, 0)
            self._drop_excess()
            return None
        # RFC 5321 section 4.1.1: white space before the CRLF should be tolerated.
        line = bytes(buffer[:end]).rstrip(b" \t")
        del buffer[: end + 2]
        self._searched = 0
        if self._head is not None:
            line, self._head = self._head, None
            return Rejected(line, LINE_TOO_LONG)
        if end > self._max_size:
            return Rejected(line[:MAX_REJECTED_SIZE], LINE_TOO_LONG)
        if _CONTROL.search(line):
            return Rejected(line[:MAX_REJECTED_SIZE], BAD_OCTETS)
        return line

    def _drop_excess(self) -> None:
        """Keep no more of an unfinished line than is needed, and the CR that may begin its CRLF."""
        buffer = self._buffer
        size = len(buffer) - buffer.endswith(b"\r")
        if self._head is None and size <= self._max_size:
            return
        if self._head is None:
            self._head = bytes(buffer[:MAX_REJECTED_SIZE])
        del buffer[:size]
        self._searched = 0
