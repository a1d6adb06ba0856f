"""One SMTP session as a machine: octets and replies go in, events and octets come out.

The rule is lock-step (RFC 821 section 2: "The dialog is purposely lock-step, one-at-a-time"): nothing
more is read until the open event is answered (RFC 5321 section 4.2). PIPELINING, awaited policy, back-pressure
and large messages need no other. What is legal is not known here (``_state``), nor how a line is written
(``_commands``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, final

from smtprecv.protocol._address import ForwardPath
from smtprecv.protocol._buffer import MAX_REJECTED_SIZE, LineReader
from smtprecv.protocol._chunks import ChunkReader, skip
from smtprecv.protocol._commands import MAX_LINE_SIZE, parse_command, parse_response
from smtprecv.protocol._config import Config
from smtprecv.protocol._context import Context
from smtprecv.protocol._envelope import Envelope, Session, Tls
from smtprecv.protocol._error import LocalProtocolError
from smtprecv.protocol._events import (
    Auth,
    AuthResponse,
    Bdat,
    Connected,
    ConnectionClosed,
    EndOfMailData,
    Event,
    Hello,
    Mail,
    MailData,
    Rcpt,
    Rejected,
    Signal,
    Xclient,
)
from smtprecv.protocol._maildata import DotReader
from smtprecv.protocol._refusal import Refusal
from smtprecv.protocol._reply import EnhancedStatus, Reply, wire_form
from smtprecv.protocol._state import (
    AUTH,
    CHUNK,
    CLOSED,
    CONNECTED,
    DATA,
    GREETED,
    IN_TRANSACTION,
    RCPT,
    TLS,
    State,
    after_bdat,
    after_reply,
    misread,
    objection,
    redacted,
)

# Made once: a union of types, a Session, even the member of an Enum for each command cost a tenth of the core's time.
_STRANGER: Final = Session()
_NEED_DATA: Final = Signal.NEED_DATA
_UNANSWERED: Final = frozenset({MailData, Bdat})
_AUTHENTICATION: Final = (Auth, AuthResponse)
_WITHOUT_STATUS: Final = (Hello, Xclient)
# RFC 2034 section 4: 2yz, 4yz and 5yz replies have a status; 3yz has none.
_DEFAULT_STATUS: Final = {klass: EnhancedStatus(klass, 0, 0) for klass in (2, 4, 5)}


@final
class Connection:
    """The server's side of one SMTP session, without any I/O.

    ::

        conn = Connection(config)
        while conn.state is not State.CLOSED:
            match conn.next_event():
                case Signal.NEED_DATA:
                    await flush()
                    conn.receive_data(await stream.receive_some(65536))
                case event:
                    for reply in await answer(event):
                        unsent += conn.send(reply)

    The first event is Connected. Every event but Bdat, MailData and ConnectionClosed is answered with one reply, the
    end of a message in LMTP with ``replies_due``; until then ``next_event`` says PAUSED. A refusal of the protocol
    itself comes as Rejected, with the reply to send: the machine never speaks on its own. In memory are at most
    one line, or one read. When the state is TLS, go on with ``secured``.
    """

    __slots__ = (
        "_assumed",
        "_buffer",
        "_context",
        "_identity",
        "_instead",
        "_is_ended",
        "_lines",
        "_mail_data",
        "_open",
        "_replies_due",
        "_state",
        "_swallowed",
    )

    def __init__(self, config: Config, tls: Tls | None = None) -> None:
        """Begin a session with a client that has just connected; ``tls`` is around it from the start (RFC 8314)."""
        self._context = Context(config, Session(tls=tls, dialect=config.dialect), is_trusted=config.trusts_client)
        self._buffer = bytearray()
        self._lines = LineReader(self._buffer, MAX_LINE_SIZE)
        self._mail_data: DotReader | ChunkReader | None = None
        self._state = CONNECTED
        self._open: Event | None = None
        self._replies_due = 0
        self._instead: tuple[ForwardPath, ...] = ()
        self._identity: str | None = None
        self._assumed = _STRANGER
        self._swallowed: tuple[int, Rejected] | None = None
        """Octets of a chunk that can't be obeyed, still to come, and what is to be said behind them."""
        self._is_ended = False

    @property
    def state(self) -> State:
        """Where the session stands. It moves with replies, and at the end of input."""
        return self._state

    @property
    def session(self) -> Session:
        """What is known of the client."""
        return self._context.session

    @property
    def envelope(self) -> Envelope | None:
        """The mail transaction so far, None outside one.

        It begins with the 2yz reply to MAIL, has each recipient, or what it was redirected to, from the
        2yz reply to its RCPT on, and stays until the reply to EndOfMailData, to RSET, or to HELO or EHLO has been sent.
        """
        transaction = self._context.transaction
        return None if transaction is None else transaction.envelope

    @property
    def replies_due(self) -> int:
        """How many replies the open event waits for; ``next_event`` is PAUSED while it is above zero."""
        return self._replies_due

    @property
    def reply_spans(self) -> tuple[int, ...]:
        """For each reply that the end of a message is due, how many of the envelope's recipients it speaks for.

        In SMTP one reply speaks for all. In LMTP each accepted RCPT has its own (RFC 2033 section 4.2), which speaks
        for one recipient, or for those that it was redirected to. Empty outside of a transaction.
        """
        transaction = self._context.transaction
        return () if transaction is None else transaction.spans(self._context.config.dialect)

    @property
    def pipelined(self) -> bool:
        """True if octets have been received that no event has used yet (RFC 2920)."""
        return bool(self._buffer)

    def receive_data(self, octets: bytes) -> None:
        """Take what the client sent; ``b""`` is the end of its input.

        Octets behind the end of input, or behind the end of the session, are ignored; those that come after
        the 220 to STARTTLS are not this session's.
        """
        if self._state is CLOSED or self._state is TLS or self._is_ended:
            return
        self._buffer += octets
        self._is_ended = not octets

    def next_event(self) -> Event | Signal:
        """Give the next thing that the client did, or a Signal; never raises.

        At the end of input, when all that was received is used up, it gives ConnectionClosed and the
        state is CLOSED. In that state, however it was reached, every further call gives it again.
        """
        if self._open is not None or self._state is TLS:
            return Signal.PAUSED
        if self._state is CLOSED:
            return ConnectionClosed()
        event = self._read()
        if event is None:
            if not self._is_ended:
                return _NEED_DATA
            self._close()
            return ConnectionClosed()
        if type(event) not in _UNANSWERED:
            self._open = event
            self._replies_due = len(self.reply_spans) if type(event) is EndOfMailData else 1
        return event

    def redirect(self, forward_paths: Sequence[ForwardPath]) -> None:
        """Let the open RCPT, should it be accepted, put these mailboxes into the envelope instead of the one it names.

        The reply is still to be sent; one that refuses makes this void. The last call counts. LocalProtocolError, and
        nothing has changed, if no RCPT is open, or without a mailbox.
        """
        if not isinstance(self._open, Rcpt) or not forward_paths:
            msg = "only an open RCPT can be redirected, to a mailbox at least"
            raise LocalProtocolError(msg)
        self._instead = tuple(forward_paths)

    def identify(self, identity: str) -> None:
        """Let the open Auth or AuthResponse, should it be accepted, make the client known by this name.

        The reply is still to be sent; one that refuses makes this void. The last call counts. LocalProtocolError, and
        nothing has changed, if neither is open.
        """
        if not isinstance(self._open, _AUTHENTICATION):
            msg = "a client is identified by AUTH alone"
            raise LocalProtocolError(msg)
        self._identity = identity

    def assume(self, session: Session) -> None:
        """Let the open Xclient, should it be accepted, leave the session as this one; TLS and dialect stay.

        As for ``identify``.
        """
        if not isinstance(self._open, Xclient):
            msg = "a session is replaced by XCLIENT alone"
            raise LocalProtocolError(msg)
        self._assumed = session

    def secured(self, tls: Tls) -> Connection:
        """Give the session that begins inside TLS, after the 220 to STARTTLS; nothing said before is known in it.

        RFC 3207 section 4.2: whatever was learned from the client in clear is forgotten.
        LocalProtocolError in any state but TLS.
        """
        if self._state is not TLS:
            msg = f"no STARTTLS was agreed to in state {self._state.name}"
            raise LocalProtocolError(msg)
        connection = Connection(self._context.config, tls)
        connection._state, connection._context.is_trusted = GREETED, self._context.is_trusted
        return connection

    def send(self, reply: Reply) -> bytes:
        """Answer the open event, and give the octets for the client.

        421 may also be said when no event is open, in any state (RFC 5321 section 3.8). The octets are those of
        the reply as it is, but that a 2yz, 4yz or 5yz reply without enhanced status gets class.0.0
        once EHLO has announced ENHANCEDSTATUSCODES. LocalProtocolError, and nothing has changed, if no
        reply is due or this one cannot answer the event.
        """
        event = self._open
        following = after_reply(self._state, None if event is None else type(event), reply.code)
        if following is None:
            asked = "nothing" if event is None else type(event).__name__
            msg = f"{reply.code} cannot answer {asked} in state {self._state.name}"
            raise LocalProtocolError(msg)
        is_ok = reply.is_ok
        if is_ok and self._identity is None and isinstance(event, _AUTHENTICATION):
            msg = "an accepted client needs an identity"
            raise LocalProtocolError(msg)
        octets = wire_form(reply, self._status_of(reply))
        if following is CLOSED:
            self._close()
            return octets
        self._replies_due -= 1
        if self._replies_due:
            return octets
        self._open = None
        if is_ok:
            self._take_over(event)
        self._instead, self._identity, self._assumed = (), None, _STRANGER
        if following is DATA:
            self._mail_data = DotReader(self._buffer, self._context.config)
        elif following not in IN_TRANSACTION:
            self._context.transaction = self._mail_data = None
        self._state = following
        return octets

    def _read(self) -> Event | None:
        """Read one event from the buffer; None if it is not all there."""
        if self._swallowed is not None:
            return self._swallow(*self._swallowed)
        state = self._state
        if state is CONNECTED:
            return Connected()
        if state is DATA or state is CHUNK:
            assert self._mail_data is not None, "DATA and BDAT begin with a reader"
            return self._mail_data.next_event()
        line = self._lines.next_line()
        return self._judge(line) if isinstance(line, bytes) else line and misread(line, state)

    def _swallow(self, size: int, refused: Rejected) -> Rejected | None:
        """Drop the octets of a chunk that can't be obeyed (RFC 3030 section 2)."""
        size -= len(skip(self._buffer, size))
        self._swallowed = (size, refused) if size else None
        return None if size else refused

    def _judge(self, line: bytes) -> Event | None:
        """Make the event of a command line: what it asks for, or Rejected."""
        state, context = self._state, self._context
        context.is_followed = bool(self._buffer)
        try:
            event = parse_response(line) if state is AUTH else parse_command(line, context)
        except Refusal as refusal:
            return misread(Rejected(line[:MAX_REJECTED_SIZE], refusal.reply), state)
        reply = objection(state, event, context)
        refused = None if reply is None else redacted(Rejected(line[:MAX_REJECTED_SIZE], reply), state)
        if isinstance(event, Bdat):
            return self._swallow(event.size, refused) if refused else self._begin_chunk(event)
        return refused or event

    def _begin_chunk(self, chunk: Bdat) -> Bdat:
        """Move on without a reply: the one that is due comes at the end of the chunk."""
        context = self._context
        if self._state is RCPT:
            is_binary = context.transaction is not None and context.transaction.is_binary
            self._mail_data = ChunkReader(self._buffer, context.config, is_binary=is_binary)
        assert isinstance(self._mail_data, ChunkReader), "a chunk follows RCPT or another chunk"
        self._mail_data.begin(chunk)
        self._state = after_bdat(self._state)
        return chunk

    def _take_over(self, event: Event | None) -> None:
        """Remember what was agreed to."""
        context = self._context
        match event:
            case Rcpt() if context.transaction is not None:
                context.transaction.add(event, self._instead)
            case Mail():
                context.begin(event)
            case Hello(domain, is_extended):
                known = context.session
                context.session = Session(domain, is_extended, known.identity, known.tls, known.dialect)
            case Auth() | AuthResponse():
                context.session = replace(context.session, identity=self._identity)
            case Xclient():
                context.assume(self._assumed)
            case _:
                pass

    def _status_of(self, reply: Reply) -> EnhancedStatus | None:
        """Give the reply's own status, or the one that ENHANCEDSTATUSCODES promised (RFC 2034 section 4)."""
        # RFC 2034 section 4: not in the greeting, which answers XCLIENT too, and not in the answer to HELO or EHLO.
        if reply.status is not None or not self.session.is_extended or isinstance(self._open, _WITHOUT_STATUS):
            return reply.status
        return _DEFAULT_STATUS.get(reply.code // 100)

    def _close(self) -> None:
        self._state = CLOSED
        self._open = self._context.transaction = self._mail_data = None
        self._replies_due = 0
        self._swallowed = None
        self._buffer.clear()
