"""One connection to a next hop: what leads the exchanges of ``relay`` over a stream, in time.

Its one rule: for every reply that is due one is given. Where none comes, because time ran out, the connection was
lost, or what came is no reply, ``lost`` stands in its place, a 4yz, and nothing more is ever said on this wire.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar, final

import trio

from smtprecv.errors import SpoolError
from smtprecv.protocol import EnhancedStatus, Reply
from smtprecv.relay import (
    NOT_A_REPLY,
    OUT_OF_STEP,
    BareLineEnd,
    Compute,
    DotStuffer,
    Exchange,
    Handshake,
    NextHop,
    Phase,
    ReplyReader,
    Say,
    SendMail,
    SessionFailed,
    bdat,
)

T = TypeVar("T")

Source: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens what is sent as the message."""

_READ_SIZE: Final = 16 * 1024
_SERVICE_CLOSES: Final = 421
_READY: Final = Reply(220, "TLS")
_BARE_LINE_END: Final = Reply(554, "a line of the message does not end in CR LF", EnhancedStatus(5, 6, 0))
_LOST: Final = Reply(451, "the connection was lost before {}", EnhancedStatus(4, 4, 2))
_TIMED_OUT: Final = Reply(451, "no time was left for {}", EnhancedStatus(4, 4, 2))


@final
@dataclass(frozen=True, slots=True)
class RelayTimeouts:
    """How many seconds each part of a session with the next hop may take.

    ``connect``: to connect, and to begin TLS. ``command``: until the greeting and the reply to a command.
    ``data``: until the reply to DATA. ``block``: to send a piece of the message. ``end``: until the reply to its end.
    Those have what RFC 5321 section 4.5.3.2 demands at least. ``total``: for an attempt as a whole. ``last_word``: to
    say QUIT; and for a cancelled attempt whose message has been sent to hear what became of it.
    """

    connect: float = 30.0
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end: float = 600.0
    total: float = 3600.0
    last_word: float = 5.0


@final
class Wire:
    """A connection.

    ``next_hop``: what is known of the server, once the session is open. ``transactions``: how many have begun.
    ``has_answered``: there was a reply other than 421 since ``begin``. Cancellation leaves a wire that can only be
    closed, but for ``SendMail``: when the message has been sent to its end, its replies are waited for a little.
    """

    def __init__(self, stream: trio.abc.Stream, timeouts: RelayTimeouts) -> None:
        """Take over a stream, on which nothing was said."""
        self.stream: trio.abc.Stream = stream
        self._timeouts: Final = timeouts
        self._reader: Final = ReplyReader()
        self._deadline = float("inf")
        self._context: ssl.SSLContext | None = None
        self._server_name: str | None = None
        self.next_hop = NextHop()
        self.lost: Reply | None = None
        self.has_answered = False
        self.transactions = 0

    @property
    def is_usable(self) -> bool:
        """True if another transaction may begin."""
        return self.is_quiet and self.transactions < self.next_hop.max_transactions

    @property
    def is_quiet(self) -> bool:
        """True if nothing is lost, and nothing was received that was not asked for."""
        return self.lost is None and not self._reader.has_unread

    def begin(self, deadline: float) -> None:
        """Begin an attempt, which may last until ``deadline``."""
        self._deadline = deadline
        self.has_answered = False

    def use_tls(self, context: ssl.SSLContext | None, server_name: str | None) -> None:
        """Say how a handshake is made."""
        self._context, self._server_name = context, server_name

    async def lead(self, exchange: Exchange[T], source: Source | None = None) -> T:
        """Do what an exchange asks for, and give what it returns; SessionFailed also for a reply too many."""
        replies: Sequence[Reply] | None = None
        while True:
            try:
                step = next(exchange) if replies is None else exchange.send(replies)
            except StopIteration as stop:
                finding: T = stop.value
                return finding
            match step:
                case Say():
                    replies = await self._say(step)
                case Handshake():
                    replies = [await self._handshake()]
                case Compute(work):
                    await trio.to_thread.run_sync(work, abandon_on_cancel=True)
                    replies = ()
                case SendMail():
                    replies = await self._send_mail(step, source)

    async def quit(self) -> None:
        """Close the connection, with a QUIT if anybody hears it; done within ``last_word`` when cancelled, too."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self._timeouts.last_word):
                self._deadline = float("inf")
                if self.is_quiet:
                    await self._say(Say(b"QUIT\r\n", 1, Phase.QUIT))
                with suppress(trio.BrokenResourceError):
                    await self.stream.aclose()
            await self.abort()

    async def abort(self) -> None:
        """Close the connection without a word."""
        await trio.aclose_forcefully(self.stream)

    async def _say(self, step: Say) -> Sequence[Reply]:
        if self._reader.has_unread:
            # Whatever it is, it answers nothing: of the replies before it, too, nobody knows what they answered.
            reply = self._reader.next_reply()
            if reply is None or reply.code != _SERVICE_CLOSES:
                raise SessionFailed(OUT_OF_STEP)
            self._lose(reply)
        if self.lost is not None:
            return [self.lost] * step.due
        if step.octets:
            await self._send(step.octets, step.phase, self._seconds(step.phase))
        return await self._hear(step.due, step.phase)

    def _seconds(self, phase: Phase) -> float:
        timeouts = self._timeouts
        special = {Phase.DATA: timeouts.data, Phase.END: timeouts.end, Phase.QUIT: timeouts.last_word}
        return special.get(phase, timeouts.command)

    def _limit(self, seconds: float) -> trio.CancelScope:
        return trio.CancelScope(deadline=min(trio.current_time() + seconds, self._deadline))

    def _stand_in(self) -> Reply:
        """Give what stands in the place of a reply that did not come."""
        return self.lost or OUT_OF_STEP

    def _lose(self, reply: Reply) -> None:
        if self.lost is None:
            self.lost = reply

    async def _send(self, octets: bytes, phase: Phase, seconds: float) -> None:
        """Send octets, or find the wire lost."""
        with self._limit(seconds) as scope:
            try:
                await self.stream.send_all(octets)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lose(_named(_LOST, phase))
        if scope.cancelled_caught:
            self._lose(_named(_TIMED_OUT, phase))

    async def _hear(self, due: int, phase: Phase) -> Sequence[Reply]:
        """Give so many replies. From a wire that is lost comes what had been said before that, if it comes soon."""
        replies: list[Reply] = []
        while len(replies) < due:
            seconds = self._seconds(phase if self.lost is None else Phase.QUIT)
            with self._limit(seconds) as scope:
                reply = await self._next_reply(phase)
                if reply is None:
                    break
                replies.append(reply)
            if scope.cancelled_caught:
                self._lose(_named(_TIMED_OUT, phase))
                break
        return [*replies, *[self._stand_in()] * (due - len(replies))]

    async def _next_reply(self, phase: Phase) -> Reply | None:
        """Read a reply; None if there is no more to come."""
        while (reply := self._reader.next_reply()) is None:
            octets: bytes | bytearray = b""
            if not self._reader.is_broken:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    octets = await self.stream.receive_some(_READ_SIZE)
            if not octets:
                self._lose(NOT_A_REPLY if self._reader.is_broken else _named(_LOST, phase))
                return None
            self._reader.receive(octets)
        if reply.code == _SERVICE_CLOSES:
            self._lose(reply)  # RFC 5321 section 3.8: the connection is being closed
        else:
            self.has_answered = True
        return reply

    async def _handshake(self) -> Reply:
        """Begin TLS; a 4yz if that fails, or if octets in clear had come that would be read inside TLS."""
        if self._context is None or not self.is_quiet:
            self._lose(OUT_OF_STEP)
            return OUT_OF_STEP
        # https_compatible: nobody waits for the other's last word.
        secured = trio.SSLStream(self.stream, self._context, server_hostname=self._server_name, https_compatible=True)
        self.stream = secured
        with self._limit(self._timeouts.connect):
            try:
                await secured.do_handshake()
            except trio.BrokenResourceError as error:
                reason = str(error.__cause__ or error) or "the connection was lost"
                self._lose(Reply(451, f"no TLS: {reason}", EnhancedStatus(4, 7, 5)))
            return _READY if self.lost is None else self.lost
        self._lose(Reply(451, "no TLS handshake in time", EnhancedStatus(4, 7, 5)))
        return self._stand_in()

    async def _send_mail(self, step: SendMail, source: Source | None) -> Sequence[Reply]:
        """Send the message, and give the replies to it. One that can't be read to its end is never ended."""
        assert source is not None, "an exchange that sends mail was given none"
        if not self.is_quiet:
            # A reply that came before there was a message is no reply to it.
            self._lose(OUT_OF_STEP)
            return [self._stand_in()] * step.due
        send = self._send_chunks if step.is_chunked else self._send_data
        try:
            async with source() as pieces:
                last = await send(pieces)
        except SpoolError as error:
            self._lose(Reply(451, str(error), EnhancedStatus(4, 3, 0)))
        except BareLineEnd:
            self._lose(_BARE_LINE_END)
        else:
            if isinstance(last, bytes):
                return await self._end(last, step.due)
            return [last] * step.due
        return [self._stand_in()] * step.due

    async def _send_data(self, pieces: AsyncIterator[bytes]) -> bytes | Reply:
        """Send the message as it stands behind DATA, and give what ends it; or why it was broken off."""
        stuffer = DotStuffer()
        async for piece in pieces:
            await self._send(stuffer.convert(piece), Phase.END, self._timeouts.block)
            if self.lost is not None:
                return await self._broken_off()
        return stuffer.end()

    async def _send_chunks(self, pieces: AsyncIterator[bytes]) -> bytes | Reply:
        """Send the message but for its last chunk, and give that; or why it was broken off."""
        held: bytes | None = None
        async for piece in pieces:
            if held is not None:
                await self._send(bdat(held, is_last=False), Phase.CHUNK, self._timeouts.block)
                (reply,) = await self._hear(1, Phase.CHUNK)
                if not reply.is_ok:
                    # RFC 3030 section 2: nothing of the message is kept, and there is nothing to go on with.
                    self._lose(OUT_OF_STEP)
                    return reply
            held = piece
        return bdat(held or b"", is_last=True)

    async def _broken_off(self) -> Reply:
        """Give what the server said before it hung up in the middle of the message, or that it did."""
        (reply,) = await self._hear(1, Phase.END)
        return self._stand_in() if reply.is_ok else reply

    async def _end(self, last: bytes, due: int) -> Sequence[Reply]:
        """Send what makes the message the server's, and hear what it says to that.

        Cancelled before all was sent, it has sent no end; cancelled behind that, it listens for ``last_word`` more,
        since an attempt that is repeated would give the recipients a second copy.
        """
        await trio.lowlevel.checkpoint()
        await self._send(last, Phase.END, self._timeouts.block)
        if self.lost is not None:
            return [await self._broken_off()] * due
        heard: list[Reply] = []
        try:
            while len(heard) < due:
                heard += await self._hear(1, Phase.END)
        except trio.Cancelled:
            with trio.move_on_after(self._timeouts.last_word, shield=True):
                while len(heard) < due and self.lost is None:
                    heard += await self._hear(1, Phase.END)
            if not any(reply.is_ok for reply in heard):
                raise
            self._lose(_named(_TIMED_OUT, Phase.END))
        return [*heard, *[self._stand_in()] * (due - len(heard))]


def _named(reply: Reply, phase: Phase) -> Reply:
    return replace(reply, text=reply.text.format(phase.value))
