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
from smtprecv.protocol._commands import MAX_LINE_SIZE, Context, parse_command
from smtprecv.protocol._config import Config
from smtprecv.protocol._envelope import Envelope, Recipient, Session
from smtprecv.protocol._error import LocalProtocolError
from smtprecv.protocol._events import (
    Connected,
    ConnectionClosed,
    Event,
    Hello,
    Mail,
    MailData,
    Rcpt,
    Rejected,
    Signal,
)
from smtprecv.protocol._maildata import DotReader
from smtprecv.protocol._refusal import Refusal
from smtprecv.protocol._reply import EnhancedStatus, Reply, Severity
from smtprecv.protocol._state import IN_TRANSACTION, State, after_reply, objection

# RFC 2034 section 4: 2yz, 4yz and 5yz replies have a status; 3yz has none.
_DEFAULT_STATUS: Final = {
    severity: EnhancedStatus(severity.value, 0, 0)
    for severity in (Severity.COMPLETION, Severity.TRANSIENT, Severity.PERMANENT)
}


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

    The first event is Connected. Every event but MailData and ConnectionClosed is answered with one reply,
    and until then ``next_event`` says PAUSED. A refusal of the protocol itself comes as Rejected, with the reply
    to send: the machine never speaks on its own. In memory are at most one line, or one read.
    """

    __slots__ = (
        "_accepted",
        "_buffer",
        "_config",
        "_envelope",
        "_instead",
        "_is_ended",
        "_lines",
        "_mail_data",
        "_open",
        "_session",
        "_state",
    )

    def __init__(self, config: Config) -> None:
        """Begin a session with a client that has just connected."""
        self._config = config
        self._buffer = bytearray()
        self._lines = LineReader(self._buffer, MAX_LINE_SIZE)
        self._mail_data = DotReader(self._buffer, config)
        self._state = State.CONNECTED
        self._session = Session()
        self._envelope: Envelope | None = None
        self._accepted = 0
        self._open: Event | None = None
        self._instead: tuple[ForwardPath, ...] = ()
        self._is_ended = False

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
        return self._envelope

    @property
    def replies_due(self) -> int:
        """How many replies the open event waits for; ``next_event`` is PAUSED exactly while it is above zero."""
        return 0 if self._open is None else 1

    @property
    def pipelined(self) -> bool:
        """True if octets have been received that no event has used yet (RFC 2920)."""
        return bool(self._buffer)

    def receive_data(self, octets: bytes) -> None:
        """Take what the client sent; ``b""`` is the end of its input.

        Octets behind the end of input, or behind the end of the session, are ignored.
        """
        if self._state is State.CLOSED or self._is_ended:
            return
        self._buffer += octets
        self._is_ended = not octets

    def next_event(self) -> Event | Signal:
        """Give the next thing that the client did, or a Signal; never raises.

        At the end of input, when all that was received is used up, it gives ConnectionClosed and the
        state is CLOSED. In that state, however it was reached, every further call gives it again.
        """
        if self._open is not None:
            return Signal.PAUSED
        if self._state is State.CLOSED:
            return ConnectionClosed()
        event = self._read()
        if event is None:
            if not self._is_ended:
                return Signal.NEED_DATA
            self._close()
            return ConnectionClosed()
        if not isinstance(event, MailData):
            self._open = event
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
        octets = bytes(self._with_status(reply))
        instead, self._instead = self._instead, ()
        self._open = None
        if following is State.CLOSED:
            self._close()
            return octets
        if reply.is_ok:
            self._take_over(event, instead)
        if following not in IN_TRANSACTION:
            self._envelope = None
        elif following is State.DATA:
            self._mail_data = DotReader(self._buffer, self._config)
        self._state = following
        return octets

    def _read(self) -> Event | None:
        """Read one event from the buffer; None if it is not all there."""
        match self._state:
            case State.CONNECTED:
                return Connected()
            case State.DATA:
                return self._mail_data.next_event()
            case _:
                line = self._lines.next_line()
                return self._judge(line) if isinstance(line, bytes) else line

    def _judge(self, line: bytes) -> Event:
        """Make the event of a command line: what it asks for, or Rejected."""
        try:
            event = parse_command(line, Context(self._config, self._session, self._envelope))
        except Refusal as refusal:
            return Rejected(line[:MAX_REJECTED_SIZE], refusal.reply)
        reply = objection(self._state, event, self._config, self._accepted)
        return event if reply is None else Rejected(line[:MAX_REJECTED_SIZE], reply)

    def _take_over(self, event: Event | None, instead: Sequence[ForwardPath]) -> None:
        """Remember what was agreed to."""
        envelope = self._envelope
        match event:
            case Hello(domain, is_extended):
                self._session = replace(self._session, hello=domain, is_extended=is_extended)
            case Mail(reverse_path, parameters):
                self._envelope = Envelope(reverse_path, parameters)
                self._accepted = 0
            case Rcpt(forward_path) if envelope is not None:
                added = [Recipient(path, forward_path) for path in instead] or [Recipient(forward_path)]
                recipients = (*envelope.recipients, *added)
                self._envelope = Envelope(envelope.reverse_path, envelope.parameters, recipients)
                self._accepted += 1
            case _:
                pass

    def _with_status(self, reply: Reply) -> Reply:
        """Fill in the enhanced status that ENHANCEDSTATUSCODES promised (RFC 2034 section 4)."""
        # RFC 2034 section 4: not in the greeting, and not in the answer to HELO or EHLO.
        if reply.status is not None or not self._session.is_extended or isinstance(self._open, Hello):
            return reply
        return Reply(reply.code, reply.text, _DEFAULT_STATUS.get(reply.severity))

    def _close(self) -> None:
        self._state = State.CLOSED
        self._envelope = None
        self._buffer.clear()
