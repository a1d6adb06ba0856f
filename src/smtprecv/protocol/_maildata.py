r"""Mail data behind DATA, cut from the stream of octets and unstuffed (RFC 5321 section 4.5.2).

One rule: only ``CRLF . CRLF`` ends it. A bare CR or LF (RFC 5321 section 2.3.8), a message that is too big, a
header with too many hops are defects: the message is read to its true end by this same reader, and refused there. So
no sequence of octets inside a message can ever be taken for a command (SMTP smuggling).

The reader works on whole pieces, and most need no more than a look for the first dot that begins a line; it knows no
lines, and so they may have any length (RFC 5321 section 4.5.3.1.6). Two octets make that simple: the CRLF of the DATA
line counts as the line end before the first line, so that a first line that begins with a dot, or is the end, is no
special case. And what may begin ``CRLF . CRLF``, four octets at most, waits for the next piece, so that no piece
divides a sequence that has a meaning.
"""

from __future__ import annotations

import re
from typing import Final, final

from smtprecv.protocol._config import Config
from smtprecv.protocol._events import EndOfMailData, MailData
from smtprecv.protocol._inspection import LEAD, Inspection

_LEADING_DOT: Final = re.compile(rb"\r\n\.")
"""An expression finds this in half the time that ``bytes.find`` takes."""
_END: Final = b"\r\n.\r\n"
_PREFIXES: Final = tuple(_END[:size] for size in range(len(_END) - 1, 0, -1))


@final
class DotReader:
    """Takes the octets of one message from the front of ``buffer``."""

    __slots__ = ("_buffer", "_held", "_inspection", "_is_ended")

    def __init__(self, buffer: bytearray, config: Config) -> None:
        """Begin directly behind the CRLF of the DATA line."""
        self._buffer = buffer
        self._inspection = Inspection(config)
        self._held = LEAD
        """Octets of the input that may begin the end of the mail data."""
        self._is_ended = False

    def next_event(self) -> MailData | EndOfMailData | None:
        """Take what is there; None if that is nothing, or nothing that is passed on."""
        if self._buffer and not self._is_ended:
            octets = self._inspection.passed(self._next_piece())
            if octets:
                return MailData(octets)
        return EndOfMailData(self._inspection.size, self._inspection.defect) if self._is_ended else None

    def _next_piece(self) -> bytes:
        """Cut off and unstuff all that can be judged without what follows."""
        octets = self._held + self._buffer
        # Large mail is base64, which has no dots at all, and to see that takes a tenth of the time.
        dot = _LEADING_DOT.search(octets) if b"." in octets else None
        end = -1 if dot is None else octets.find(_END, dot.start())
        if end < 0:
            self._buffer.clear()
            cut = len(octets) - next((len(prefix) for prefix in _PREFIXES if octets.endswith(prefix)), 0)
            self._held = octets[cut:]
        else:
            del self._buffer[: end + len(_END) - len(self._held)]
            self._is_ended = True
            cut = end + len(b"\r\n")  # the CRLF before the dot is the message's own
        piece = octets[:cut]
        return piece if dot is None or dot.start() == end else piece.replace(b"\r\n.", b"\r\n")
