"""What a message must be while it arrives, however its octets are cut from the stream.

One rule: a defect is found once and stays: nothing behind it is passed on, and the message is read to
its true end all the same. Pieces may be cut anywhere but between CR and LF.
"""

from __future__ import annotations

from io import IncrementalNewlineDecoder
from typing import Final, final

from smtprecv.protocol._config import Config
from smtprecv.protocol._refusal import BARE_CR_OR_LF, MESSAGE_TOO_BIG, TOO_MANY_HOPS
from smtprecv.protocol._reply import Reply

_SOUND_LINE_ENDS: Final = (None, "\r\n")
"""What the decoder may have seen: no line end, or CRLF alone."""
LEAD: Final = b"\r\n"
"""Stands before the first octet of a message: the line end that its first line begins behind."""
_RECEIVED: Final = b"\r\nreceived:"
MAX_HEADER_SIZE: Final = 1024 * 1024
"""Octets at the start of a message in which Received fields are counted; no header of a mail loop is longer."""


@final
class Inspection:
    """Looks at one message, piece by piece; the first piece begins with LEAD."""

    __slots__ = (
        "_config",
        "_header_tail",
        "_hops",
        "_is_in_header",
        "_lead_size",
        "_line_ends",
        "_scanned_size",
        "size",
    )

    def __init__(self, config: Config, *, is_binary: bool = False) -> None:
        """Begin; where it is binary, CR and LF may stand anywhere (RFC 3030 section 3)."""
        self._config = config
        self._line_ends = None if is_binary else IncrementalNewlineDecoder(None, translate=False)
        """Decodes nothing, but remembers which line ends it has seen, in one look and at the speed of C."""
        self._lead_size = len(LEAD)
        """How many octets at the front of the next piece are not the message's."""
        self.size = 0
        """Octets of the message so far."""
        self._hops = 0
        self._is_in_header = True
        self._scanned_size = 0
        self._header_tail = b""
        """The last octets of the header so far, in which the name of a field may have begun."""

    def passed(self, piece: bytes) -> bytes:
        """Give what of ``piece`` is the message's and may be passed on: nothing any more, once there is a defect."""
        if self._line_ends is not None:
            self._line_ends.decode(piece.decode("latin-1"), final=True)
        if self._is_in_header:
            self._count_hops(piece)
        if self._lead_size and piece:
            piece = piece[self._lead_size :]
            self._lead_size = 0
        self.size += len(piece)
        return piece if self.defect is None else b""

    @property
    def defect(self) -> Reply | None:
        """The refusal that the message is due; None for a sound one."""
        if self._line_ends is not None and self._line_ends.newlines not in _SOUND_LINE_ENDS:
            return BARE_CR_OR_LF
        if self.size > self._config.max_message_size:
            return MESSAGE_TOO_BIG  # RFC 1870 section 4
        return TOO_MANY_HOPS if self._hops > self._config.max_hops else None

    def _count_hops(self, piece: bytes) -> None:
        """Count the Received fields (RFC 5321 section 6.3) up to the first empty line, keeping ten octets at most."""
        text = self._header_tail + piece[: MAX_HEADER_SIZE - self._scanned_size]
        self._scanned_size += len(text) - len(self._header_tail)
        end = text.find(b"\r\n\r\n")
        self._is_in_header = end < 0 and self._scanned_size < MAX_HEADER_SIZE
        header = text if end < 0 else text[:end]
        self._hops += header.lower().count(_RECEIVED)
        self._header_tail = header[1 - len(_RECEIVED) :]
