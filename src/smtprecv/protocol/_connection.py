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
from smtprecv.protocol._state import IN_TRANSACTION, State, after_bdat, after_reply, misread, objection, redacted
from smtprecv.protocol._transaction import Transaction

# Made once: a union of types, or a Session, for each command costs a tenth of the core's time.
_STRANGER: Final = Session()
_UNANSWERED: Final = (MailData, Bdat)
_AUTHENTICATION: Final = (Auth, AuthResponse)
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
        "_config",
        "_identity",
        "_instead",
        "_is_ended",
        "_is_trusted",
        "_lines",
        "_mail_data",
        "_open",
        "_replies_due",
        "_session",
        "_state",
        "_swallowed",
        "_transaction",
        "_transactions",
    )

    def __init__(self, config: Config, tls: Tls | None = None) -> None:
        """Begin a session with a client that has just connected; ``tls`` is around it from the start (RFC 8314)."""
        self._config = config
        self._buffer = bytearray()
        self._lines = LineReader(self._buffer, MAX_LINE_SIZE)
        self._mail_data: DotReader | ChunkReader = DotReader(self._buffer, config)
        self._state = State.CONNECTED
        self._session = Session(tls=tls, dialect=config.dialect)
        self._transaction: Transaction | None = None
        self._transactions = 0
        self._open: Event | None = None
        self._replies_due = 0
        self._instead: tuple[ForwardPath, ...] = ()
        self._identity: str | None = None
        self._assumed = _STRANGER
        self._swallowed: tuple[int, Rejected] | None = None
        """Octets of a chunk that can't be obeyed, still to come, and what is to be said behind them."""
        self._is_ended = False
        self._is_trusted = config.trusts_client

    @property
    def state(self) -> State:
        """Where the session stands. It moves with replies, and at the end of input."""
        return self._state

    @property
    def session(self) -> Session:
        """What is known of the client."""
        return self._session

    @property
    def envelope(self) -> Envelope | None:
        """The mail transaction so far, None outside one.

        It begins with the 2yz reply to MAIL, has each recipient, or what it was redirected to, from the
        2yz reply to its RCPT on, and stays until the reply to EndOfMailData, to RSET, or to HELO or EHLO has been sent.
        """
        return None if self._transaction is None else self._transaction.envelope

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
        return () if self._transaction is None else self._transaction.spans(self._config.dialect)

    @property
    def pipelined(self) -> bool:
        """True if octets have been received that no event has used yet (RFC 2920)."""
        return bool(self._buffer)

    def receive_data(self, octets: bytes) -> None:
        """Take what the client sent; ``b""`` is the end of its input.

        Octets behind the end of input, or behind the end of the session, are ignored; those that come after
        the 220 to STARTTLS are not this session's.
        """
        if self._state is State.CLOSED or self._state is State.TLS or self._is_ended:
            return
        self._buffer += octets
        self._is_ended = not octets

    def next_event(self) -> Event | Signal:
        """Give the next thing that the client did, or a Signal; never raises.

        At the end of input, when all that was received is used up, it gives ConnectionClosed and the
        state is CLOSED. In that state, however it was reached, every further call gives it again.
        """
        if self._open is not None or self._state is State.TLS:
            return Signal.PAUSED
        if self._state is State.CLOSED:
            return ConnectionClosed()
        event = self._read()
        if event is None:
            if not self._is_ended:
                return Signal.NEED_DATA
            self._close()
            return ConnectionClosed()
        if not isinstance(event, _UNANSWERED):
            self._open = event
            self._replies_due = len(self.reply_spans) if isinstance(event, EndOfMailData) else 1
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
        if self._state is not State.TLS:
            msg = f"no STARTTLS was agreed to in state {self._state.name}"
            raise LocalProtocolError(msg)
        connection = Connection(self._config, tls)
        connection._state, connection._is_trusted = State.GREETED, self._is_trusted
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
        if reply.is_ok and isinstance(event, _AUTHENTICATION) and self._identity is None:
            msg = "an accepted client needs an identity"
            raise LocalProtocolError(msg)
        octets = wire_form(reply, self._status_of(reply))
        if following is State.CLOSED:
            self._close()
            return octets
        self._replies_due -= 1
        if self._replies_due:
            return octets
        self._open = None
        if reply.is_ok:
            self._take_over(event)
        self._instead, self._identity, self._assumed = (), None, _STRANGER
        if following not in IN_TRANSACTION:
            self._transaction = None
        elif following is State.DATA:
            self._mail_data = DotReader(self._buffer, self._config)
        self._state = following
        return octets

    def _read(self) -> Event | None:
        """Read one event from the buffer; None if it is not all there."""
        if self._swallowed is not None:
            return self._swallow(*self._swallowed)
        match self._state:
            case State.CONNECTED:
                return Connected()
            case State.DATA | State.CHUNK:
                return self._mail_data.next_event()
            case _:
                line = self._lines.next_line()
                return self._judge(line) if isinstance(line, bytes) else line and misread(line, self._state)

    def _swallow(self, size: int, refused: Rejected) -> Rejected | None:
        """Drop the octets of a chunk that can't be obeyed (RFC 3030 section 2)."""
        size -= len(skip(self._buffer, size))
        self._swallowed = (size, refused) if size else None
        return None if size else refused

    def _judge(self, line: bytes) -> Event | None:
        """Make the event of a command line: what it asks for, or Rejected."""
        context = self._context()
        try:
            event = parse_response(line) if self._state is State.AUTH else parse_command(line, context)
        except Refusal as refusal:
            return misread(Rejected(line[:MAX_REJECTED_SIZE], refusal.reply), self._state)
        reply = objection(self._state, event, context)
        refused = None if reply is None else redacted(Rejected(line[:MAX_REJECTED_SIZE], reply), self._state)
        if isinstance(event, Bdat):
            return self._swallow(event.size, refused) if refused else self._begin_chunk(event)
        return refused or event

    def _context(self) -> Context:
        accepted = 0 if self._transaction is None else len(self._transaction.shares)
        return Context(self._config, self._session, self.envelope, accepted, self._transactions, bool(self._buffer))

    def _begin_chunk(self, chunk: Bdat) -> Bdat:
        """Move on without a reply: the one that is due comes at the end of the chunk."""
        if self._state is State.RCPT:
            is_binary = self._transaction is not None and self._transaction.is_binary
            self._mail_data = ChunkReader(self._buffer, self._config, is_binary=is_binary)
        assert isinstance(self._mail_data, ChunkReader), "a chunk follows RCPT or another chunk"
        self._mail_data.begin(chunk)
        self._state = after_bdat(self._state)
        return chunk

    def _take_over(self, event: Event | None) -> None:
        """Remember what was agreed to."""
        match event:
            case Hello(domain, is_extended):
                self._session = replace(self._session, hello=domain, is_extended=is_extended)
            case Auth() | AuthResponse():
                self._session = replace(self._session, identity=self._identity)
            case Xclient():
                tls = self._session.tls and replace(self._session.tls, client_name=None)
                self._session = replace(self._assumed, tls=tls, dialect=self._session.dialect)
                # Only who speaks for the client was trusted, and each client has its own transactions.
                self._transactions = 0
                self._is_trusted = False
            case Mail():
                self._begin_transaction(event)
            case Rcpt() if self._transaction is not None:
                self._transaction.add(event, self._instead)
            case _:
                pass

    def _begin_transaction(self, mail: Mail) -> None:
        parameters = mail.parameters
        # RFC 6710 section 4.1: a priority is granted to those who may ask for one; others are served at 0.
        if parameters.priority and self._session.identity is None and not self._is_trusted:
            parameters = replace(parameters, priority=0)
        self._transaction = Transaction(mail, parameters)
        self._transactions += 1

    def _status_of(self, reply: Reply) -> EnhancedStatus | None:
        """Give the reply's own status, or the one that ENHANCEDSTATUSCODES promised (RFC 2034 section 4)."""
        # RFC 2034 section 4: not in the greeting, which answers XCLIENT too, and not in the answer to HELO or EHLO.
        if reply.status is not None or not self._session.is_extended or isinstance(self._open, Hello | Xclient):
            return reply.status
        return _DEFAULT_STATUS.get(reply.code // 100)

    def _close(self) -> None:
        self._state = State.CLOSED
        self._open = self._transaction = None
        self._replies_due = 0
        self._swallowed = None
        self._buffer.clear()
