"""Delivery by SMTP or LMTP to one next hop: a smart host, or the server that has the mailboxes.

What is said and what the answers mean is ``relay``'s; here are connections, TLS and time. Its one rule: a recipient
who was told of is told of, whatever happens to the others, to the connection or to the attempt.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.deliveries._pool import Pool
from smtprecv.deliveries._trouble import BROKEN_OFF
from smtprecv.deliveries._wire import RelayTimeouts, Wire
from smtprecv.delivery import Attempt
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.hostname import own_hostname
from smtprecv.message import Message, Now, utc_now
from smtprecv.protocol import Dialect, EnhancedStatus, LocalProtocolError, Recipient, Reply
from smtprecv.relay import (
    OUT_OF_STEP,
    REFUSALS,
    Handover,
    SessionFailed,
    Terms,
    TlsMode,
    must_inspect,
    opening,
    transaction,
)
from smtprecv.sasl import Password
from smtprecv.spool import Entry
from smtprecv.trace import divider, received_field

_FULL_NAME: Final = re.compile(r"([A-Za-z0-9_-]{1,63}\.)+[A-Za-z][A-Za-z0-9-]{0,62}\.?")
"""A domain name of several labels, the last of which is not a number: no address."""


@final
class Relay:
    """A Delivery that hands messages to a next hop by SMTP or LMTP.

    ``host``: its name or address, which is looked up as an address and never as an MX; a Path for a Unix socket.
    ``tls``: by default ``TlsMode.NONE`` for a Unix socket, VERIFIED with ``credentials``, which are the user and
    password for AUTH, and OPPORTUNISTIC else. ``is_implicit``: TLS from the first octet on. ``tls_context``: who is
    trusted, by default the authorities that the system trusts. ``hostname``: what we call ourselves, in EHLO and in the
    Received field that is put on top of each message. ``connections``: how many there may be at one time; attempts
    beyond that wait. ``idle``: how many of them are kept for the next message, each for ``idle_seconds``, while a queue
    runs (``running``). ConfigError for settings that do not go together.

    Replies: what the next hop answered to RCPT, or to the message. A session that does not come to MAIL, time that
    runs out and a connection that is lost are 451 for whoever has no other reply, and nothing that is said before
    MAIL is ever permanent. 5.6.3, 5.6.7 and 5.6.9 for a message that would have to be converted; 5.7.30 and 5.7.10 for
    REQUIRETLS, which wants a verified next hop that has it. 2.1.9 for a recipient of whom the sender wants to hear
    and the next hop won't tell (it has no DSN). A cancelled attempt has sent no message to its end, or hears for some
    seconds more what became of it; a copy is given twice only if the reply to the message is lost.
    """

    def __init__(
        self,
        host: str | Path,
        port: int = 25,
        *,
        dialect: Dialect = Dialect.SMTP,
        tls: TlsMode | None = None,
        is_implicit: bool = False,
        tls_context: ssl.SSLContext | None = None,
        credentials: Password | None = None,
        hostname: str | None = None,
        connections: int = 10,
        idle: int = 10,
        idle_seconds: float = 30.0,
        timeouts: RelayTimeouts | None = None,
        now: Now = utc_now,
    ) -> None:
        """Take the settings; connect to nobody. Where there may be TLS, the system's certificates are read."""
        mode = _mode(host, credentials) if tls is None else tls
        _check(host, mode, credentials, connections, is_implicit=is_implicit)
        self._host: Final = host
        self._name: Final = _host_name(host)
        self._port: Final = port
        self._where: Final = str(host) if isinstance(host, Path) else f"{host}:{port}"
        self._terms: Final = Terms(
            hostname or own_hostname(), dialect, mode, is_implicit, credentials, is_local=isinstance(host, Path)
        )
        self._contexts: Final = _contexts(mode, tls_context)
        self._timeouts: Final = timeouts or RelayTimeouts()
        self._now: Final = now
        self._limiter: Final = trio.CapacityLimiter(connections)
        self._pool: Final = Pool(idle, idle_seconds)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Keep idle connections during the block, and say QUIT on them at its end."""
        return self._pool.running()

    def reports_success(self, entry: Entry, recipient: Recipient) -> bool:
        """Say that an SMTP server that has DSN reports itself; one that has none answers 2.1.9 here, by LMTP nobody."""
        return self._terms.dialect is Dialect.SMTP

    def destination(self, entry: Entry, recipient: Recipient) -> str:
        """Name the next hop: ``host:port``, or the path of its socket."""
        return self._where

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Hand the message on to the pending recipients, in as many transactions as the next hop needs."""
        replies: list[Reply] = []
        async with self._limiter:
            deadline = trio.current_time() + self._timeouts.total
            try:
                await self._hand_over(attempt, deadline, replies)
            except SessionFailed as failure:
                rest = failure.reply
            except (SpoolError, LocalProtocolError) as error:
                rest = Reply(451, str(error), EnhancedStatus(4, 3, 0))
            except trio.Cancelled:
                if not any(reply.is_ok for reply in replies):
                    raise
                rest = BROKEN_OFF
            else:
                return replies
        return [*replies, *[rest] * (len(attempt.recipients) - len(replies))]

    async def _hand_over(self, attempt: Attempt, deadline: float, replies: list[Reply]) -> None:
        """Append a reply for each recipient; those that are missing when it raises have none."""
        terms = self._terms_for(attempt)
        recipients = attempt.recipients
        wire = await self._pool.take(is_verified=terms.tls is TlsMode.VERIFIED)
        is_reused = wire is not None
        wire = wire or await self._connect(terms, deadline)
        try:
            wire.begin(deadline)
            while len(replies) < len(recipients):
                if wire.lost is None and not wire.is_usable:
                    await wire.quit()
                    wire, is_reused = await self._connect(terms, deadline), False
                some = recipients[len(replies) : len(replies) + wire.next_hop.max_recipients]
                answers = await self._transact(wire, attempt, some)
                if is_reused and wire.lost is not None and not wire.has_answered:
                    # It was closed while it waited, and nobody has heard of the message.
                    await wire.abort()
                    wire, is_reused = await self._connect(terms, deadline), False
                    continue
                replies += answers
        except BaseException:
            await wire.abort()
            raise
        await self._pool.give(wire)

    async def _transact(self, wire: Wire, attempt: Attempt, recipients: tuple[Recipient, ...]) -> Sequence[Reply]:
        envelope, message = attempt.envelope, attempt.message
        wire.transactions += 1
        # Nobody else sees a copy whose only recipient is named in it.
        only = envelope.recipients[0] if len(envelope.recipients) == 1 else None
        trace = received_field(attempt.entry, self._terms.hostname, only)
        is_ascii = must_inspect(envelope, wire.next_hop) and await _is_ascii(message)
        by = envelope.parameters.deliver_by
        left = None if by is None else by.seconds - (self._now() - attempt.entry.received) // dt.timedelta(seconds=1)
        handover = Handover(envelope, recipients, len(trace) + message.size, is_ascii, left)
        replies = await wire.lead(transaction(handover, wire.next_hop), lambda: _traced(trace, message))
        if self._name is not None:
            ours = {*REFUSALS, OUT_OF_STEP, wire.lost}
            for recipient, reply in zip(recipients, replies, strict=True):
                if reply not in ours:
                    attempt.answered_by(recipient, self._name)
        return replies

    def _terms_for(self, attempt: Attempt) -> Terms:
        """Give the terms; RFC 8689 section 4.2 sets those of a message that requires TLS, if there is any."""
        if not attempt.envelope.parameters.require_tls or self._terms.tls is TlsMode.NONE:
            return self._terms
        return replace(self._terms, tls=TlsMode.VERIFIED)

    async def _connect(self, terms: Terms, deadline: float) -> Wire:
        """Open a connection and a session on it; SessionFailed if that can't be done."""
        wire = Wire(await self._stream(deadline), self._timeouts)
        try:
            wire.begin(deadline)
            # RFC 6066 section 3: the name in TLS has no dot at its end, and no certificate has.
            wire.use_tls(self._contexts.get(terms.tls), str(self._host).removesuffix("."))
            wire.next_hop = await wire.lead(opening(terms, secrets.token_urlsafe(18)))
        except SessionFailed as failure:
            await wire.quit()
            if failure.is_tls and terms != self._terms:
                # RFC 8689 section 4.2: the sender is told.
                raise SessionFailed(Reply(550, failure.reply.text, EnhancedStatus(5, 7, 10))) from None
            raise
        except BaseException:
            await wire.abort()
            raise
        else:
            return wire

    async def _stream(self, deadline: float) -> trio.abc.Stream:
        try:
            with trio.CancelScope(deadline=min(deadline, trio.current_time() + self._timeouts.connect)):
                if isinstance(self._host, Path):
                    return await trio.open_unix_socket(self._host)
                return await trio.open_tcp_stream(self._host, self._port)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            reason = "no connection in time"
        raise SessionFailed(Reply(451, f"{self._where}: {reason}", EnhancedStatus(4, 4, 1)))


@asynccontextmanager
async def _traced(trace: bytes, message: Message) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """Give a message with our trace field on top."""
    async with message.chunks() as chunks:

        async def pieces() -> AsyncGenerator[bytes, None]:
            head = trace
            async for chunk in chunks:
                if head:
                    yield head + divider(chunk)
                    head = b""
                yield chunk
            if head:
                yield head

        async with aclosing(pieces()) as traced:
            yield traced


async def _is_ascii(message: Message) -> bool:
    async with message.chunks() as chunks:
        async for chunk in chunks:
            if not chunk.isascii():
                return False
    return True


def _contexts(tls: TlsMode, verifying: ssl.SSLContext | None) -> Mapping[TlsMode, ssl.SSLContext]:
    """Give the context of each mode there may be: one that verifies, or one that keeps out who only listens."""
    if tls is TlsMode.NONE:
        return {}
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    return {
        TlsMode.OPPORTUNISTIC: trusting,
        TlsMode.REQUIRED: trusting,
        TlsMode.VERIFIED: verifying or ssl.create_default_context(),
    }


def _host_name(host: str | Path) -> str | None:
    """Give the name of the next hop for a report (RFC 3464 section 2.3.5); None if it is no full domain name."""
    if isinstance(host, Path) or not _FULL_NAME.fullmatch(host):
        return None
    return host.removesuffix(".")


def _mode(host: str | Path, credentials: Password | None) -> TlsMode:
    if isinstance(host, Path):
        return TlsMode.NONE
    return TlsMode.OPPORTUNISTIC if credentials is None else TlsMode.VERIFIED


def _check(
    host: str | Path, tls: TlsMode, credentials: Password | None, connections: int, *, is_implicit: bool
) -> None:
    """Refuse what does not go together."""
    faults = {
        "a Unix socket has no TLS": isinstance(host, Path) and (is_implicit or tls is not TlsMode.NONE),
        "TLS from the first octet on is TLS": is_implicit and tls is TlsMode.NONE,
        "a password is not for whoever offers no TLS": credentials is not None and tls is TlsMode.OPPORTUNISTIC,
        "there must be a connection": connections < 1,
    }
    for text, is_so in faults.items():
        if is_so:
            msg = f"the next hop {host}: {text}"
            raise ConfigError(msg)
