"""One connection: the task between a stream, the protocol core, and the answers.

The theory. The core says what the client did, ``Answers`` says what is said to that, the core says which
octets go out. The core is lock-step, so there is never more than one event in hand, and
back-pressure, pipelining and a policy that takes its time are all one thing: nothing more is read.

Time. One cancel scope lies around the whole dialogue, and its deadline is moved: a scope for each
read would cost a third of the speed. The deadline is moved before and after every wait for
the client, so neither a silent client nor a hook that hangs holds a connection longer than the idle
limit, and nothing does past the end of the session. A commit is shielded, and so are the octets
that tell of it: a client that was not told sends the message again.

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
    Config,
    Connection,
    EndOfMailData,
    EnhancedStatus,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    Noop,
    Rcpt,
    Rejected,
    Reply,
    Rset,
    Severity,
    Signal,
    State,
    Vrfy,
)
from smtprecv.server._answers import Answers
from smtprecv.server._hooks import Hooks
from smtprecv.server._intake import Intake
from smtprecv.server._limits import Limits

_log: Final = logging.getLogger("smtprecv.server")

_READ_SIZE: Final = 65536
_LOGGED_SIZE: Final = 100
"""Octets of a refused command line that the log shows."""
_FLUSH_SIZE: Final = 2048
"""Octets of replies that may wait for the end of a pipelined group. To send is also to let others run."""
_FLUSH_TIME: Final = 5.0
"""Seconds for which they may wait: a client whose group is answered slowly must see that it is."""
_PROMISE_TIMEOUT: Final = 10.0
"""Seconds for which a cancellation waits until a client has been told that its message is accepted."""
_FAREWELL_TIMEOUT: Final = 1.0
"""Seconds for the last words to a client, and for it to hear them."""

_IDLE: Final = Reply(421, "timeout, closing connection", EnhancedStatus(4, 4, 2))
SHUTDOWN: Final = Reply(421, "service shutting down", EnhancedStatus(4, 3, 2))
_TOO_MANY_ERRORS: Final = Reply(421, "too many errors", EnhancedStatus(4, 7, 0))
_TROUBLE: Final = Reply(421, "local error, closing connection", EnhancedStatus(4, 3, 0))

_IDLE_COMMANDS: Final[frozenset[type[Event]]] = frozenset({Hello, Rset, Noop, Help, Vrfy, Expn})
"""Commands that further no mail."""


@final
class Dialogue:
    """A connection's task, and what it knows."""

    def __init__(
        self, stream: trio.abc.Stream, client: Client, config: Config, hooks: Hooks, intake: Intake, limits: Limits
    ) -> None:
        """Prepare a dialogue with ``client`` over ``stream``; ``run`` holds it."""
        self._stream = stream
        self._limits = limits
        self._connection = Connection(config)
        self._answers = Answers(self._connection, client, config, hooks, intake)
        self._scope = trio.CancelScope()
        self._session_ends = trio.current_time() + limits.session_timeout
        self._farewell = _IDLE
        self._unsent = bytearray()
        self._tells_of_commit = False
        self._has_accepted = False
        self._is_sending = False
        self._is_idle = False
        self._is_draining = False
        self._is_cut_short = False
        self._flushed_at = trio.current_time()
        self._errors = 0
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
            await trio.aclose_forcefully(self._stream)

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
                await self._converse()
        except trio.Cancelled:
            await self._say_farewell(SHUTDOWN)
            raise
        await self._say_farewell(self._farewell)

    async def _converse(self) -> None:
        """Answer the client until the session is over, or until it is time for a farewell."""
        connection = self._connection
        while connection.state is not State.CLOSED:
            if self._errors >= self._limits.max_errors:
                self._farewell = _TOO_MANY_ERRORS
                return
            if self._may_leave:
                self._farewell = SHUTDOWN
                return
            event = connection.next_event()
            if isinstance(event, Signal):
                await self._read()
            else:
                await self._respond(event)
        await self._flush()
        if self._is_cut_short:
            await self._let_hear()

    async def _respond(self, event: Event) -> None:
        now = self._move_deadline()
        for reply in await self._answers.answer(event):
            self._is_cut_short = self._connection.pipelined
            self._unsent += self._connection.send(reply)
            self._judge(event, reply)
        if type(event) in ENDS_GROUP or len(self._unsent) > _FLUSH_SIZE or now - self._flushed_at > _FLUSH_TIME:
            await self._flush()

    def _judge(self, event: Event, reply: Reply) -> None:
        """Count what the client does wrong, and what it does for nothing."""
        if isinstance(event, EndOfMailData) and reply.is_ok:
            self._tells_of_commit = self._has_accepted = True
            self._idle_commands = 0
        if type(event) in _IDLE_COMMANDS:
            self._idle_commands += 1
        if reply.severity is Severity.PERMANENT:
            self._errors += 1
            self._log_refusal(event, reply)
        elif self._idle_commands > self._limits.max_idle_commands:
            self._errors += 1

    async def _read(self) -> None:
        """Send what is due, and wait for the client."""
        await self._flush()
        self._is_idle = True
        octets = await self._stream.receive_some(_READ_SIZE)
        self._is_idle = False
        self._move_deadline()
        self._connection.receive_data(bytes(octets))

    async def _flush(self) -> None:
        self._flushed_at = self._move_deadline()
        if not self._unsent:
            return
        # Past this line the octets begin to go out: a cancellation that was there before cuts off nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._is_sending = True
        if self._tells_of_commit:
            with trio.move_on_after(_PROMISE_TIMEOUT, shield=True) as scope:
                await self._stream.send_all(self._unsent)
            if scope.cancelled_caught:
                # How much went out is not known: after this nothing could be told apart any more.
                msg = "the client does not take its replies"
                raise trio.BrokenResourceError(msg)
            self._tells_of_commit = False
        else:
            await self._stream.send_all(self._unsent)
        self._is_sending = False
        self._unsent.clear()

    def _move_deadline(self) -> float:
        """Begin the idle limit anew, and give the time."""
        now = trio.current_time()
        self._scope.deadline = min(now + self._limits.idle_timeout, self._session_ends)
        return now

    async def _say_farewell(self, reply: Reply) -> None:
        """Send what is due and a last reply, and let the client hear it, for a second at most.

        Nothing is said after the session's own end, nor in the middle of a reply that the client has
        not taken.
        """
        if self._is_sending or self._connection.state is State.CLOSED:
            return
        self._unsent += self._connection.send(reply)
        _log.info("%s: %s", self._answers.client.session_id, reply)
        with trio.move_on_after(_FAREWELL_TIMEOUT, shield=True), suppress(trio.BrokenResourceError):
            await self._stream.send_all(self._unsent)
            await self._let_hear()

    async def _let_hear(self) -> None:
        """Let the client read the last reply: a socket closed with unread input is reset, and that may overtake it."""
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            return
        with trio.move_on_after(_FAREWELL_TIMEOUT):
            await self._stream.send_eof()
            while await self._stream.receive_some(_READ_SIZE):
                pass

    def _log_refusal(self, event: Event, reply: Reply) -> None:
        client = self._answers.client
        _log.info("%s: %s: refused %s: %s", client.session_id, client.address, _subject(event), reply)


def _subject(event: Event) -> str:
    """Name what was refused, in ASCII and without control characters."""
    match event:
        case Rejected(line):
            return ascii(line[:_LOGGED_SIZE])[1:]
        case Mail(reverse_path):
            return ascii(f"MAIL <{reverse_path}>")[1:-1]
        case Rcpt(forward_path):
            return ascii(f"RCPT <{forward_path}>")[1:-1]
        case _:
            return type(event).__name__.upper()
