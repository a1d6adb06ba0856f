"""What must be known of a message before it can stand inside a report.

Its one rule: the message passes through once, in pieces, and only its header stays in memory, up to a size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

LINE_SIZE: Final = 998
"""Octets of a line without its CRLF (RFC 5322 section 2.1.1)."""
HEADER_SIZE: Final = 64 * 1024
"""Octets of a header that a report brings back at most; it is cut behind a line."""


@final
@dataclass(frozen=True, slots=True)
class Original:
    """The message that a report is about.

    ``header``: its header fields, without the empty line, perhaps cut. ``is_ascii``: the message has no 8-bit octet.
    ``is_lines``: it can stand in a MIME part without an encoding (RFC 2045 section 2.8): lines of at most 998 octets,
    no NUL, no bare CR or LF.
    """

    header: bytes
    is_ascii: bool
    is_lines: bool


@final
class Survey:
    """Looks at a message as it passes. Give it every chunk, in order; then ``original`` says what it was.

    Where the header alone is to come back, it is enough to go on until ``has_header``.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        # The CRLF in front makes of an empty first line what it is: the end of an empty header.
        self._header = bytearray(b"\r\n")
        self._has_header = False
        self._rest = b""
        self._is_ascii = True
        self._is_lines = True

    @property
    def has_header(self) -> bool:
        """True when the rest of the message would not change the header."""
        return self._has_header

    def add(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self._is_ascii = self._is_ascii and chunk.isascii()
        if not self._has_header:
            self._add_to_header(chunk)
        if self._is_lines:
            text = self._rest + chunk
            end = text.rfind(b"\r\n") + 2 if b"\r\n" in text else 0
            self._rest = text[end:]
            # A line that goes on may have, beside its 998 octets, the CR of its CRLF.
            self._is_lines = is_lines(text[:end]) and len(self._rest) <= LINE_SIZE + 1

    def original(self) -> Original:
        """Say what the message was, all of which has passed."""
        header = bytes(self._header[2:])
        if header and not header.endswith(b"\r\n"):
            header += b"\r\n"
        return Original(header, self._is_ascii, self._is_lines and is_lines(self._rest))

    def _add_to_header(self, chunk: bytes) -> None:
        start = max(0, len(self._header) - 3)
        self._header += chunk
        end = self._header.find(b"\r\n\r\n", start)
        if end >= 0:
            del self._header[end + 2 :]
        self._has_header = end >= 0 or len(self._header) > HEADER_SIZE
        if len(self._header) > HEADER_SIZE:
            del self._header[self._header.rfind(b"\r\n", 0, HEADER_SIZE) + 2 :]


def is_lines(octets: bytes) -> bool:
    """Say whether the octets are lines that MIME can have without an encoding; the last one may lack its CRLF."""
    if b"\0" in octets:
        return False
    if not octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n"):
        return False
    return max(map(len, octets.split(b"\r\n"))) <= LINE_SIZE
