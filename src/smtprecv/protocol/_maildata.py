r"""Mail data, cut from the stream of octets and unstuffed (RFC 5321 section 4.5.2).

One rule: only ``CRLF . CRLF`` ends it. A bare CR or LF (RFC 5321 section 2.3.8), a message that is too big, a
header with too many hops are defects: the message is read to its true end by this same reader, and refused there. So
no sequence of octets inside a message can ever be taken for a command (SMTP smuggling).

The reader works on whole pieces with ``find``, ``replace`` and ``count``; it knows no lines, and so they may have any
length (RFC 5321 section 4.5.3.1.6). Two octets make that simple: the CRLF of the DATA line counts as the line end
before the first line, so that a first line that begins with a dot, or is the end, is no special case. And what may
begin ``CRLF . CRLF``, four octets at most, waits for the next piece, so that no piece divides a sequence that has a
meaning.
"""

from __future__ import annotations

from typing import Final, final

from smtprecv.protocol._config import Config
from smtprecv.protocol._events import EndOfMailData, MailData
from smtprecv.protocol._refusal import BARE_CR_OR_LF, MESSAGE_TOO_BIG, TOO_MANY_HOPS
from smtprecv.protocol._reply import Reply

_END: Final = b"\r\n.\r\n"
_PREFIXES: Final = tuple(_END[:size] for size in range(len(_END) - 1, 0, -1))
_RECEIVED: Final = b"\r\nreceived:"
MAX_HEADER_SIZE: Final = 1024 * 1024
"""Octets at the start of a message in which Received fields are counted; no header of a mail loop is longer."""


@final
class DotReader:
    """Takes the octets of one message from the front of ``buffer``."""

    __slots__ = (
        "_buffer",
        "_config",
        "_has_bare_cr_or_lf",
        "_header_tail",
        "_held",
        "_hops",
        "_is_ended",
        "_is_in_header",
        "_lead_size",
        "_scanned_size",
        "_size",
    )

    def __init__(self, buffer: bytearray, config: Config) -> None:
        """Begin directly behind the CRLF of the DATA line."""
        self._buffer = buffer
        self._config = config
        self._held = b"\r\n"
        """Octets of the input that may begin the end of the mail data."""
        self._lead_size = len(self._held)
        """How many octets at the front of the next piece are not the message's."""
        self._is_ended = False
        self._size = 0
        self._has_bare_cr_or_lf = False
        self._hops = 0
        self._is_in_header = True
        self._scanned_size = 0
        self._header_tail = b""
        """The last octets of the header so far, in which the name of a field may have begun."""

    def next_event(self) -> MailData | EndOfMailData | None:
        """Take what is there; None if that is nothing, or nothing that is passed on."""
        if self._buffer and not self._is_ended:
            octets = self._checked(self._next_piece())
            if octets:
                return MailData(octets)
        return EndOfMailData(self._size, self._defect()) if self._is_ended else None

    def _next_piece(self) -> bytes:
        """Cut off and unstuff all that can be judged without what follows."""
        octets = self._held + self._buffer
        end = octets.find(_END)
        if end < 0:
            self._buffer.clear()
            cut = len(octets) - next((len(prefix) for prefix in _PREFIXES if octets.endswith(prefix)), 0)
            self._held = octets[cut:]
        else:
            del self._buffer[: end + len(_END) - len(self._held)]
            self._is_ended = True
            cut = end + len(b"\r\n")  # the CRLF before the dot is the message's own
        return octets[:cut].replace(b"\r\n.", b"\r\n")

    def _checked(self, piece: bytes) -> bytes:
        """Give what of ``piece`` is the message's and may be passed on: nothing any more, once there is a defect."""
        crlfs = piece.count(b"\r\n")
        if not crlfs == piece.count(b"\r") == piece.count(b"\n"):
            self._has_bare_cr_or_lf = True
        if self._is_in_header:
            self._count_hops(piece)
        if self._lead_size and piece:
            piece = piece[self._lead_size :]
            self._lead_size = 0
        self._size += len(piece)
        return piece if self._defect() is None else b""

    def _count_hops(self, piece: bytes) -> None:
        """Count the Received fields (RFC 5321 section 6.3) up to the first empty line, keeping ten octets at most."""
        piece = piece[: MAX_HEADER_SIZE - self._scanned_size]
        self._scanned_size += len(piece)
        text = (self._header_tail + piece).lower()
        end = text.find(b"\r\n\r\n")
        self._is_in_header = end < 0 and self._scanned_size < MAX_HEADER_SIZE
        self._hops += text.count(_RECEIVED, 0, len(text) if end < 0 else end)
        self._header_tail = text[1 - len(_RECEIVED) :]

    def _defect(self) -> Reply | None:
        if self._has_bare_cr_or_lf:
            return BARE_CR_OR_LF
        if self._size > self._config.max_message_size:
            return MESSAGE_TOO_BIG  # RFC 1870 section 4
        return TOO_MANY_HOPS if self._hops > self._config.max_hops else None
