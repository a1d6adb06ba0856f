"""What a delivery hands on: the message below its trace fields, for one recipient or for several.

Its one rule: a copy for one recipient names this one, and a copy for several names none of them (RFC 5321
section 7.2). It is given in pieces, and may be read as often as the message.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import final

from smtprecv.message import Message
from smtprecv.protocol import Body, Recipient
from smtprecv.spool import Entry
from smtprecv.trace import divider, envelope_to_field, received_field, return_path_field, trace_fields


@final
class LineEnds:
    """Turns the CRLF of mail data into LF, however it is cut into pieces; BODY=BINARYMIME is left as it is."""

    def __init__(self, body: Body) -> None:
        """Begin a message."""
        self._is_binary = body is Body.BINARY_MIME
        self._held = b""

    def convert(self, octets: bytes) -> bytes:
        """Give the next piece; a CR at its end waits for what follows."""
        if self._is_binary:
            return octets
        octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        return octets.removesuffix(b"\r").replace(b"\r\n", b"\n")

    def rest(self) -> bytes:
        """Give what still waits at the end of the message."""
        held, self._held = self._held, b""
        return held


@final
@dataclass(frozen=True, slots=True)
class Copy:
    """A message below its trace fields, for ``recipient``; for several of the entry's if that is None.

    ``hostname``: the receiver's, for the Received field. ``envelope_to``: an X-Envelope-To field too.
    ``keeps_crlf``: line ends stay CRLF, where they otherwise become LF.
    """

    entry: Entry
    recipient: Recipient | None
    hostname: str
    envelope_to: bool = False
    keeps_crlf: bool = False

    @property
    def trace(self) -> bytes:
        """The trace fields, with the line ends of the copy."""
        envelope = self.entry.envelope
        is_utf8 = envelope.parameters.smtputf8
        if self.recipient is None:
            trace = return_path_field(envelope.reverse_path, is_utf8=is_utf8) + received_field(
                self.entry, self.hostname
            )
        else:
            trace = trace_fields(self.entry, self.recipient, self.hostname)
            if self.envelope_to:
                trace += envelope_to_field(self.recipient, is_utf8=is_utf8)
        return self._line_ends().convert(trace)

    def top(self, start: bytes) -> bytes:
        """Give what stands on top of a message that starts so, with the line ends of the copy."""
        return self.trace + self._line_ends().convert(divider(start))

    def below(self, octets: bytes) -> bytes:
        """Give a whole message with the line ends of the copy; it is the same for every recipient."""
        line_ends = self._line_ends()
        return line_ends.convert(octets) + line_ends.rest()

    @asynccontextmanager
    async def pieces(self, message: Message) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Give the octets; a message in no piece at all has its trace fields all the same."""
        async with message.chunks() as chunks, aclosing(self._below_trace(chunks)) as pieces:
            yield pieces

    async def _below_trace(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        line_ends, has_begun = self._line_ends(), False
        async for chunk in chunks:
            if not has_begun:
                has_begun = True
                yield self.top(chunk)
            yield line_ends.convert(chunk)
        yield line_ends.rest() if has_begun else self.top(b"")

    def _line_ends(self) -> LineEnds:
        return LineEnds(Body.BINARY_MIME if self.keeps_crlf else self.entry.envelope.parameters.body)
