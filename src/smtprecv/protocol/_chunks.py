"""Mail data behind BDAT, counted and not searched (RFC 3030 section 2).

One rule: a chunk ends where its size says, whatever its octets are; one that can't be obeyed is
swallowed to that same place. A CR at the end of a chunk waits for the next one, which may begin with its LF.
"""

from __future__ import annotations

from typing import final

from smtprecv.protocol._config import Config
from smtprecv.protocol._events import Bdat, EndOfChunk, EndOfMailData, MailData
from smtprecv.protocol._inspection import LEAD, Inspection


@final
class ChunkReader:
    """Takes the chunks of one message from the front of ``buffer``."""

    __slots__ = ("_buffer", "_held", "_inspection", "_is_last", "_left")

    def __init__(self, buffer: bytearray, config: Config, *, is_binary: bool) -> None:
        """Expect the first chunk."""
        self._buffer = buffer
        self._inspection = Inspection(config, is_binary=is_binary)
        self._held = LEAD
        """What the next piece begins with."""
        self._left = 0
        self._is_last = False

    def begin(self, chunk: Bdat) -> None:
        """Expect this chunk directly behind its command line."""
        self._left = chunk.size
        self._is_last = chunk.is_last

    def next_event(self) -> MailData | EndOfChunk | EndOfMailData | None:
        """Take what is there; None if that is nothing, or nothing that is passed on."""
        taken = skip(self._buffer, self._left)
        if taken:
            self._left -= len(taken)
            octets = self._inspection.passed(self._next_piece(taken))
            if octets:
                return MailData(octets)
        if self._left:
            return None
        return self._end_of_message() if self._is_last else EndOfChunk(self._inspection.size, self._inspection.defect)

    def _next_piece(self, taken: bytes) -> bytes:
        """Give all that can be judged without what follows."""
        octets = self._held + taken
        cut = len(octets) - octets.endswith(b"\r")
        self._held = octets[cut:]
        return octets[:cut]

    def _end_of_message(self) -> MailData | EndOfMailData:
        """Give what was held back, and then the end."""
        held, self._held = self._held, b""
        octets = self._inspection.passed(held)
        return MailData(octets) if octets else EndOfMailData(self._inspection.size, self._inspection.defect)


def skip(buffer: bytearray, size: int) -> bytes:
    """Take at most so many octets from the front of ``buffer``."""
    taken = bytes(buffer[:size])
    del buffer[:size]
    return taken
