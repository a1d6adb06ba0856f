"""The protocol as one table: all that decides whether a command is legal lives in this file.

Two rules carry it.

1. *A command only asks; the server's reply moves the session.* MAIL does not begin a transaction: the
   250 to MAIL does. So a row of TRANSITIONS is a state and an event, and its columns are what a reply of
   each severity makes of the session. None in a column is a reply that cannot answer that event.
2. *A pair that is not in the table is 503*, by construction and not by a check. An extension is rows: its
   events in the states where they are legal, and the states that it adds.

What a state does not say (how many recipients were accepted already) is in ``objection``, below the table.
Rejected leaves the session where it was, and so is in no row but that of AUTH, whose exchange it ends. 421 is in
none, because it closes from anywhere. BDAT needs no reply: it moves the session by itself, and its
row says where. The diagram in docs/protocol.md is drawn from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple, TypeAlias, final

from smtprecv.protocol._context import Context
from smtprecv.protocol._envelope import MailParameters
from smtprecv.protocol._events import (
    Auth,
    AuthResponse,
    Bdat,
    Connected,
    Data,
    EndOfChunk,
    EndOfMailData,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rejected,
    Rset,
    StartTls,
    Vrfy,
    Xclient,
    Xforward,
)
from smtprecv.protocol._extensions import mechanisms
from smtprecv.protocol._refusal import (
    AUTH_LINE_TOO_LONG,
    AUTH_REQUIRED,
    BDAT_SYNTAX,
    ENCRYPTION_REQUIRED,
    LINE_TOO_LONG,
    MESSAGE_TOO_BIG,
    NOT_IMPLEMENTED,
    OUT_OF_ORDER,
    STARTTLS_FOLLOWED,
    TLS_REQUIRED,
    TOO_MANY_RECIPIENTS,
    TOO_MANY_TRANSACTIONS,
    UNKNOWN_MECHANISM,
    UNKNOWN_PARAMETER,
)
from smtprecv.protocol._reply import Reply


@final
class State(Enum):
    """Where a session stands."""

    CONNECTED = auto()
    """The client waits for the greeting."""
    REFUSED = auto()
    """The greeting was no 220: only QUIT is answered (RFC 5321 section 3.1).

    So it is after an XCLIENT that was refused: whoever goes on is not who was trusted to say it.
    """
    GREETED = auto()
    """The client has not said HELO or EHLO."""
    READY = auto()
    """No mail transaction is open."""
    AUTH = auto()
    """The client is to answer a challenge."""
    MAIL = auto()
    """There is a reverse-path and no recipient."""
    RCPT = auto()
    """There is a recipient at least."""
    DATA = auto()
    """The client sends the message."""
    CHUNK = auto()
    """The client sends a chunk of the message."""
    CHUNKED = auto()
    """There is a chunk at least."""
    TLS = auto()
    """STARTTLS was agreed to: this session is over, and goes on as another one inside TLS."""
    CLOSED = auto()
    """It is over, by 221, by 421, or because the client closed."""


@final
class Moves(NamedTuple):
    """Where a reply leads, by its severity; None where such a reply is no answer."""

    completion: State | None
    intermediate: State | None
    negative: State | None


EventType: TypeAlias = type[Event]
Rows: TypeAlias = Mapping[EventType, Moves]
Table: TypeAlias = Mapping[State, Rows]

CONNECTED, REFUSED, GREETED, READY = State.CONNECTED, State.REFUSED, State.GREETED, State.READY
AUTH, MAIL, RCPT, DATA = State.AUTH, State.MAIL, State.RCPT, State.DATA
CHUNK, CHUNKED, TLS, CLOSED = State.CHUNK, State.CHUNKED, State.TLS, State.CLOSED


def _anytime(here: State, reset: State) -> dict[EventType, Moves]:
    """Give the rows of the commands that are legal at any time (RFC 5321 section 4.1.4)."""
    stay = Moves(here, None, here)
    return {
        Noop: stay,
        Help: stay,
        Vrfy: stay,
        Expn: stay,
        Rset: Moves(reset, None, here),
        Quit: Moves(CLOSED, None, here),
    }


# fmt: off
TRANSITIONS: Final[Table] = {
    # in state    on event            2yz       3yz     4yz, 5yz
    CONNECTED: {
                  Connected:     Moves(GREETED,  None,  REFUSED)},
    REFUSED:   {
                  Quit:          Moves(CLOSED,   None,  REFUSED)},
    GREETED:   _anytime(GREETED, reset=GREETED) | {
                  Hello:         Moves(READY,    None,  GREETED),
                  Xclient:       Moves(GREETED,  None,  REFUSED)},
    READY:     _anytime(READY, reset=READY) | {
                  Hello:         Moves(READY,    None,  READY),
                  StartTls:      Moves(TLS,      None,  READY),
                  Auth:          Moves(READY,    AUTH,  READY),
                  Xclient:       Moves(GREETED,  None,  REFUSED),
                  Xforward:      Moves(READY,    None,  READY),
                  Mail:          Moves(MAIL,     None,  READY)},
    AUTH:      {
                  AuthResponse:  Moves(READY,    AUTH,  READY),
                  Rejected:      Moves(None,     None,  READY)},
    MAIL:      _anytime(MAIL, reset=READY) | {
                  Hello:         Moves(READY,    None,  MAIL),
                  Rcpt:          Moves(RCPT,     None,  MAIL)},
    RCPT:      _anytime(RCPT, reset=READY) | {
                  Hello:         Moves(READY,    None,  RCPT),
                  Rcpt:          Moves(RCPT,     None,  RCPT),
                  Data:          Moves(None,     DATA,  RCPT),
                  Bdat:          Moves(CHUNK,    None,  None)},
    DATA:      {
                  EndOfMailData: Moves(READY,    None,  READY)},
    CHUNK:     {
                  EndOfChunk:    Moves(CHUNKED,  None,  READY),
                  EndOfMailData: Moves(READY,    None,  READY)},
    CHUNKED:   _anytime(CHUNKED, reset=READY) | {
                  Hello:         Moves(READY,    None,  CHUNKED),
                  Bdat:          Moves(CHUNK,    None,  None)},
    TLS:       {},
    CLOSED:    {},
}
"""What is legal in each state, and where each reply to it leads."""
# fmt: on

IN_TRANSACTION: Final = frozenset({MAIL, RCPT, DATA, CHUNK, CHUNKED})
"""The states in which there is an envelope."""

ENDS_GROUP: Final[frozenset[EventType]] = frozenset(
    # RFC 2920 section 3.2: these must not be buffered. The reply to the mail data is here too: while it is
    # held back, a broken connection makes the client send the message again (RFC 1047).
    {Hello, Data, Vrfy, Expn, Quit, Noop, Rejected, EndOfMailData}
    # RFC 3207 section 4, RFC 4954 section 4: the client waits for each of these.
    | {StartTls, Auth, AuthResponse, Xclient, Xforward},
)
"""Events whose replies go out at once, even when more of the pipelined group is there."""

_IN_CLEAR: Final[frozenset[EventType]] = frozenset({Hello, Noop, StartTls, Quit, Xclient, Xforward})
"""What may be said before TLS where TLS is required (RFC 3207 section 4)."""
_NEEDS_IDENTITY: Final[frozenset[EventType]] = frozenset({Mail, Vrfy, Expn})
"""What may not be said before AUTH where AUTH is required (RFC 4954 section 6)."""


def objection(state: State, event: Event, context: Context) -> Reply | None:
    """Say why ``event``, a command, is not legal now; None if it is."""
    if type(event) not in TRANSITIONS[state]:
        return OUT_OF_ORDER
    config, session = context.config, context.session
    if config.requires_tls and not session.is_secure and type(event) not in _IN_CLEAR:
        return TLS_REQUIRED
    if config.requires_auth and session.identity is None and type(event) in _NEEDS_IDENTITY:
        return AUTH_REQUIRED
    match event:
        case Mail(parameters=parameters):
            return _mail_objection(parameters, context)
        case Rcpt() if context.transaction is not None and len(context.transaction.shares) >= config.max_recipients:
            return TOO_MANY_RECIPIENTS  # RFC 5321 section 4.5.3.1.10: 452, so that the client sends these later
        case Data() if context.transaction is not None and context.transaction.is_binary:
            return OUT_OF_ORDER  # RFC 3030 section 3
        case StartTls():
            return _starttls_objection(context)
        case Auth(mechanism):
            return _auth_objection(mechanism, context)
        case _:
            return None


def _mail_objection(parameters: MailParameters, context: Context) -> Reply | None:
    config = context.config
    if parameters.size is not None and parameters.size > config.max_message_size:
        return MESSAGE_TOO_BIG  # RFC 1870 section 6.1
    if config.max_transactions is not None and context.transactions >= config.max_transactions:
        return TOO_MANY_TRANSACTIONS  # RFC 9422 section 4.1
    # What is not offered is not known (RFC 8689 section 2, RFC 4954 section 3).
    is_unknown = (parameters.require_tls and not context.session.is_secure) or (
        parameters.auth is not None and not config.auth
    )
    return UNKNOWN_PARAMETER if is_unknown else None


def _starttls_objection(context: Context) -> Reply | None:
    if not context.config.starttls:
        return NOT_IMPLEMENTED
    # RFC 3207 section 4.2: not inside of TLS.
    if context.session.is_secure or not context.session.is_extended:
        return OUT_OF_ORDER
    # What stands behind it was said in clear, and must never be taken for what is said inside TLS.
    return STARTTLS_FOLLOWED if context.is_followed else None


def _auth_objection(mechanism: str, context: Context) -> Reply | None:
    if not context.config.auth:
        return NOT_IMPLEMENTED
    # RFC 4954 section 4: once, and after EHLO.
    if context.session.identity is not None or not context.session.is_extended:
        return OUT_OF_ORDER
    if mechanism in mechanisms(context.config, context.session):
        return None
    is_too_early = mechanism in context.config.auth and not context.session.is_secure
    return ENCRYPTION_REQUIRED if is_too_early else UNKNOWN_MECHANISM


def misread(refused: Rejected, state: State) -> Rejected:
    """Say what becomes of a line that is no command.

    Behind a BDAT whose size is not known stands a chunk that cannot be skipped (RFC 3030 section 2): the session ends,
    before a message is taken for commands.
    """
    is_chunk = state is not AUTH and refused.line[:4].upper() == b"BDAT"
    return Rejected(refused.line, BDAT_SYNTAX) if is_chunk else redacted(refused, state)


def redacted(refused: Rejected, state: State) -> Rejected:
    """Leave out of a refused line what may be a password: such lines are logged."""
    verb = refused.line.lstrip()[:4]
    if state is not AUTH and verb.upper() != b"AUTH":
        return refused
    # RFC 4954 section 4: a status of its own.
    reply = AUTH_LINE_TOO_LONG if refused.reply is LINE_TOO_LONG else refused.reply
    return Rejected(b"" if state is AUTH else verb, reply)


def after_bdat(state: State) -> State:
    """Say where a legal BDAT leads, which needs no reply."""
    following = TRANSITIONS[state][Bdat].completion
    assert following is not None, "the row of BDAT says where it leads"
    return following


def after_reply(state: State, event: EventType | None, code: int) -> State | None:
    """Say where the reply ``code`` to an open event of this type leads; None if it cannot answer it.

    Without an open event (None) nothing but 421 can be said.
    """
    if code == 421 and state is not CLOSED:
        return CLOSED  # RFC 5321 section 3.8
    is_completion, is_negative = code < 300, code >= 400
    # RFC 5321 section 4.3.2: 221 is the one completion of QUIT, and of nothing else.
    if event is None or (is_completion and (code == 221) is not (event is Quit)):
        return None
    rows = TRANSITIONS[state]
    if event is Rejected and Rejected not in rows:
        return state if is_negative else None
    moves = rows.get(event, _NO_MOVES)
    if is_negative:
        return moves.negative
    return moves.completion if is_completion else moves.intermediate


_NO_MOVES: Final = Moves(None, None, None)
