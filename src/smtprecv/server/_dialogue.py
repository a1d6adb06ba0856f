"""One connection: the task between a stream, the protocol core, and the answers.

The theory. The core says what the client did, ``Answers`` says what is said to that, the core says which
octets go out. The core is lock-step, so there is never more than one event in hand, and
back-pressure, pipelining and a policy that takes its time are all one thing: nothing more is read.

Time. One cancel scope lies around the whole dialogue, and its deadline is moved (``Patience``): a scope for each
read would cost a third of the speed. Each request of the client has its time, and so has each answer: neither a
silent client, nor one that sends an octet now and then, nor a hook that hangs holds a connection longer,
and nothing does past the end of the session. A commit is shielded, and so are the octets
that tell of it: a client that was not told sends the message again.

TLS. A dialogue begins inside TLS, or goes on inside it with a new connection, which knows nothing of before. What
counts against abuse belongs to the dialogue, and stays.

Ends. The client quits or is gone; or a limit, a drain or a cancellation ends the dialogue with one
421. A dialogue that drains ends at the first moment when no transaction is open.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final, final

import trio

from smtprecv.message import Client, SessionId
from smtprecv.protocol import (
    ENDS_GROUP,
    Auth,
    AuthResponse,
    Connection,
    EndOfMailData,
    EnhancedStatus,
    Event,
    Expn,
    Hello,
    Help,
    MailData,
    Noop,
    Rejected,
    Reply,
    Rset,
    Severity,
    Signal,
    StartTls,
    State,
    Tls,
    Vrfy,
)
from smtprecv.server._answers import Answers
from smtprecv.server._limits import Doorkeeper
from smtprecv.server._patience import Patience
from smtprecv.server._refused import is_redacted, subject
from smtprecv.server._role import Service
from smtprecv.server._tls import secure
from smtprecv.server._transport import SocketTransport, close_at_once

_log: Final = logging.getLogger("smtprecv.server")

_READ_SIZE: Final = 65536
"""Octets that are read at once; ..."""
_LARGE_READ_SIZE: Final = 4 * _READ_SIZE
"""... from a client who sent as many the last time."""
_FLUSH_SIZE: Final = 2048
"""Octets of replies that may wait for the end of a pipelined group. To send is also to let others run."""
_FLUSH_TIME: Final = 5.0
"""Seconds for which they may wait: a client whose group is answered slowly must see that it is."""
_PROMISE_TIMEOUT: Final = 10.0
"""Seconds for which a cancellation waits until a client has been told that its message is accepted."""
_FAREWELL_TIMEOUT: Final = 1.0
"""Seconds for the last words to a client, and for it to hear them."""

# An Enum is slow to find its members, and these are asked for at each command.
_CLOSED: Final = State.CLOSED
_PERMANENT: Final = Severity.PERMANENT

_IDLE: Final = Reply(421, "timeout, closing connection", EnhancedStatus(4, 4, 2))
SHUTDOWN: Final = Reply(421, "service shutting down", EnhancedStatus(4, 3, 2))
_TOO_MANY_ERRORS: Final = Reply(421, "too many errors", EnhancedStatus(4, 7, 0))
_TOO_MANY_FAILURES: Final = Reply(421, "too many authentication failures", EnhancedStatus(4, 7, 0))
_TOO_EARLY: Final = Reply(421, "you must wait for the greeting", EnhancedStatus(4, 7, 0))
_TROUBLE: Final = Reply(421, "local error, closing connection", EnhancedStatus(4, 3, 0))

_IDLE_COMMANDS: Final[frozenset[type[Event]]] = frozenset({Hello, Rset, Noop, Help, Vrfy, Expn})
"""Commands that further no mail."""


@final
class Dialogue:
    """A connection's task, and what it knows."""

    def __init__(self, stream: trio.abc.Stream, client: Client, service: Service, doorkeeper: Doorkeeper) -> None:
        """Prepare a dialogue with ``client`` over ``stream``; ``run`` holds it."""
        self._transport: Final = stream
        self._stream = stream
        self._secured: trio.SSLStream[trio.abc.Stream] | None = None
        self._service = service
        self._limits = service.limits
        self._doorkeeper = doorkeeper
        self._config = service.config_for(client)
        self._connection = Connection(self._config)
        self._answers = Answers(self._connection, client, service, doorkeeper)
        self._scope = trio.CancelScope()
        self._patience = Patience(service.limits, self._scope)
        self._farewell = _IDLE
        self._read_size = _READ_SIZE
        self._unsent = b""
        self._tells_of_commit = False
        self._has_accepted = False
        self._is_sending = False
        self._is_idle = False
        self._is_draining = False
        self._is_cut_short = False
        self._is_shaking_hands = False
        self._flushed_at = trio.current_time()
        self._errors = 0
        self._auth_failures = 0
        self._was_refused_auth = False
        self._idle_commands = 0

    async def run(self) -> None:
        """Hold the dialogue to its end and close the stream. Only cancellation comes out of it."""
        try:
            await self._run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            _log.info("%s: connection lost: %s", self._answers.client.session_id, error.__cause__ or error)
        # A bug of ours ends one dialogue, not the server.
        except Exception:
            _log.exception("%s: the dialogue failed", self._answers.client.session_id)
            await self._say_farewell(_TROUBLE)
        finally:
            await self._answers.close()
            await close_at_once(self._transport)

    @property
    def session_id(self) -> SessionId:
        """The name of this connection."""
        return self._answers.client.session_id

    @property
    def has_accepted(self) -> bool:
        """True once a message has been accepted over this connection."""
        return self._has_accepted

    def drain(self) -> None:
        """End as soon as no transaction is open: at once, if the client is idle outside of one."""
        self._is_draining = True
        if self._is_idle and self._may_leave:
            self._farewell = SHUTDOWN
            self._scope.cancel()

    @property
    def _may_leave(self) -> bool:
        return self._is_draining and self._connection.envelope is None

    async def _run(self) -> None:
        try:
            with self._scope:
                if self._service.implicit_tls:
                    self._go_on(Connection(self._config, await self._secure()))
                if await self._is_patient():
                    await self._converse()
        except trio.Cancelled:
            await self._say_farewell(SHUTDOWN)
            raise
        await self._say_farewell(self._farewell)

    async def _secure(self) -> Tls:
        """Put the stream into TLS; what was to be said in clear is said."""
        assert self._service.tls is not None, "TLS is offered only where there is a certificate"
        self._patience.begin()
        self._is_shaking_hands = True
        self._secured, tls = await secure(self._stream, self._service.tls, self._limits.handshake_timeout)
        self._stream = self._secured
        self._is_shaking_hands = False
        return tls

    def _go_on(self, connection: Connection) -> None:
        self._connection = connection
        self._answers.go_on(connection)

    async def _is_patient(self) -> bool:
        """Say whether the client waits for the greeting (RFC 5321 section 4.3.1); who does not reads no replies."""
        self._patience.begin()
        if self._limits.greet_delay:
            with trio.move_on_after(self._limits.greet_delay):
                if not await self._stream.receive_some(_READ_SIZE):
                    msg = "it did not wait for the greeting"
                    raise trio.BrokenResourceError(msg)
                self._farewell = _TOO_EARLY
                return False
        return True

    async def _converse(self) -> None:
        """Answer the client until the session is over, or until it is time for a farewell."""
        while self._connection.state is not _CLOSED:
            if (self._errors or self._is_draining) and self._is_over():
                return
            event = self._connection.next_event()
            if isinstance(event, Signal):
                await self._read()
                continue
            await self._respond(event)
            if isinstance(event, StartTls) and self._connection.state is State.TLS:
                self._go_on(self._connection.secured(await self._secure()))
        if self._unsent:
            await self._flush()
        if self._is_cut_short or self._secured is not None:
            await self._let_hear()

    def _is_over(self) -> bool:
        """Say whether it is time for a farewell, and choose it."""
        if self._errors >= self._limits.max_errors:
            self._farewell = _TOO_MANY_ERRORS
        elif self._auth_failures >= self._limits.max_auth_failures:
            self._farewell = _TOO_MANY_FAILURES
        elif self._may_leave:
            self._farewell = SHUTDOWN
        else:
            return False
        return True

    async def _respond(self, event: Event) -> None:
        # Octets of a message buy no time anew: they have when they were received.
        now = trio.current_time() if isinstance(event, MailData) else self._patience.begin()
        delay = 0.0
        for reply in await self._answers.answer(event):
            self._is_cut_short = self._connection.pipelined
            self._unsent += self._connection.send(reply)
            delay = max(delay, self._judge(event, reply))
            if reply.code == 421:
                break  # for all recipients of LMTP it is said once
        # Who has a promise is told of it at once, whatever else is said in the same breath (LMTP).
        if delay and not self._tells_of_commit:
            await trio.sleep(delay)
        if type(event) in ENDS_GROUP:
            await self._flush()
        elif len(self._unsent) > _FLUSH_SIZE or now - self._flushed_at > _FLUSH_TIME:
            await self._flush()
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _judge(self, event: Event, reply: Reply) -> float:
        """Count what the client does wrong, and what it does for nothing; give the seconds that its reply waits."""
        if isinstance(event, EndOfMailData) and reply.is_ok:
            self._tells_of_commit = self._has_accepted = True
            self._idle_commands = 0
        elif type(event) in _IDLE_COMMANDS:
            self._idle_commands += 1
        if reply.severity is _PERMANENT:
            return self._count_error(event, reply)
        if reply.code == 421:
            self._log_refusal(event, reply)
        if self._idle_commands > self._limits.max_idle_commands:
            self._errors += 1
        return 0.0

    def _count_error(self, event: Event, reply: Reply) -> float:
        self._log_refusal(event, reply)
        self._errors += 1
        self._doorkeeper.erred(self._answers.client.address)
        tarpit = self._limits.tarpit(self._errors)
        if not isinstance(event, Auth | AuthResponse):
            return tarpit
        self._auth_failures += 1
        return max(self._limits.auth_failure_delay, tarpit)

    async def _read(self) -> None:
        """Send what is due, and wait for the client."""
        if self._unsent:
            await self._flush()
        self._is_idle = True
        octets = await self._stream.receive_some(self._read_size)
        self._is_idle = False
        self._read_size = _READ_SIZE if len(octets) < _READ_SIZE else _LARGE_READ_SIZE
        self._flushed_at = self._patience.received(len(octets))
        self._connection.receive_data(bytes(octets))

    async def _flush(self) -> None:
        """Send what is due, and begin to wait for more."""
        self._flushed_at = self._patience.begin()
        # Past this line the octets begin to go out: a cancellation that was there before cuts off nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        if isinstance(self._stream, SocketTransport):
            self._unsent = self._unsent[self._stream.send_at_once(self._unsent) :]
        if self._unsent:
            await self._send_all()
        self._tells_of_commit = False

    async def _send_all(self) -> None:
        """Send what the client must take first."""
        self._is_sending = True
        if self._tells_of_commit:
            with trio.move_on_after(_PROMISE_TIMEOUT, shield=True) as scope:
                await self._stream.send_all(self._unsent)
            if scope.cancelled_caught:
                # How much went out is not known: after this nothing could be told apart any more.
                msg = "the client does not take its replies"
                raise trio.BrokenResourceError(msg)
        else:
            await self._stream.send_all(self._unsent)
        self._is_sending = False
        self._unsent = b""

    async def _say_farewell(self, reply: Reply) -> None:
        """Send what is due and a last reply, and let the client hear it, for a second at most.

        Nothing is said after the session's own end, nor in the middle of a reply that the client has
        not taken, nor of a handshake.
        """
        if self._is_sending or self._is_shaking_hands or self._connection.state is _CLOSED:
            return
        self._unsent += self._connection.send(reply)
        _log.info("%s: %s", self._answers.client.session_id, reply)
        with trio.move_on_after(_FAREWELL_TIMEOUT, shield=True), suppress(trio.BrokenResourceError):
            await self._stream.send_all(self._unsent)
            await self._let_hear()

    async def _let_hear(self) -> None:
        """Let the client read the last reply: a socket closed with unread input is reset, and that may overtake it.

        Inside TLS it is told that this was the end (RFC 8446 section 6.1), and hardly ever says so itself.
        """
        stream = self._stream
        with trio.move_on_after(_FAREWELL_TIMEOUT), suppress(trio.BrokenResourceError):
            if self._secured is not None:
                with suppress(trio.BrokenResourceError):
                    await self._secured.unwrap()
                stream = self._secured.transport_stream
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
                while await stream.receive_some(_READ_SIZE):
                    pass

    def _log_refusal(self, event: Event, reply: Reply) -> None:
        client = self._answers.client
        is_of_auth = isinstance(event, Auth | AuthResponse) or (isinstance(event, Rejected) and is_redacted(event))
        self._was_refused_auth = self._was_refused_auth or is_of_auth
        # Who does not listen goes on with the user and the password, which are no commands then.
        if self._was_refused_auth and reply.code == 500:
            event = Rejected(b"", reply)
        _log.info("%s: %s: refused %s: %s", client.session_id, client.address, subject(event), reply)
