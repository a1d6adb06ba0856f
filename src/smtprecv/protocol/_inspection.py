"""What a message must be while it arrives, however its octets are cut from the stream.

One rule: a defect is found once and stays: nothing behind it is passed on, and the message is read to
its true end all the same. Pieces may be cut anywhere but between CR and LF.
"""

from __future__ import annotations

from typing import Final, final

from smtprecv.protocol._config import Config
from smtprecv.protocol._refusal import BARE_CR_OR_LF, MESSAGE_TOO_BIG, TOO_MANY_HOPS
from smtprecv.protocol._reply import Reply

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
        "_has_bare_cr_or_lf",
        "_header_tail",
        "_hops",
        "_is_binary",
        "_is_in_header",
        "_lead_size",
        "_scanned_size",
        "size",
    )

    def __init__(self, config: Config, *, is_binary: bool = False) -> None:
        """Begin; where it is binary, CR and LF may stand anywhere (RFC 3030 section 3)."""
        self._config = config
        self._is_binary = is_binary
        self._lead_size = len(LEAD)
        """How many octets at the front of the next piece are not the message's."""
        self.size = 0
        """Octets of the message so far."""
        self._has_bare_cr_or_lf = False
        self._hops = 0
        self._is_in_header = True
        self._scanned_size = 0
        self._header_tail = b""
        """The last octets of the header so far, in which the name of a field may have begun."""

    def passed(self, piece: bytes) -> bytes:
        """Give what of ``piece`` is the message's and may be passed on: nothing any more, once there is a defect."""
        crlfs = piece.count(b"\r\n")
        if not crlfs == piece.count(b"\r") == piece.count(b"\n"):
            self._has_bare_cr_or_lf = True
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
        if self._has_bare_cr_or_lf and not self._is_binary:
            return BARE_CR_OR_LF
        if self.size > self._config.max_message_size:
            return MESSAGE_TOO_BIG  # RFC 1870 section 4
        return TOO_MANY_HOPS if self._hops > self._config.max_hops else None

    def _count_hops(self, piece: bytes) -> None:
        """Count the Received fields (RFC 5321 section 6.3) up to the first empty line, keeping ten octets at most."""
        piece = piece[: MAX_HEADER_SIZE - self._scanned_size]
        self._scanned_size += len(piece)
        text = (self._header_tail + piece).lower()
        end = text.find(b"\r\n\r\n")
        self._is_in_header = end < 0 and self._scanned_size < MAX_HEADER_SIZE
        self._hops += text.count(_RECEIVED, 0, len(text) if end < 0 else end)
        self._header_tail = text[1 - len(_RECEIVED) :]
