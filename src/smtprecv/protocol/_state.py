"""The protocol as one table: all that decides whether a command is legal lives in this file.

Two rules carry it.

1. *A command only asks; the server's reply moves the session.* MAIL does not begin a transaction: the
   250 to MAIL does. So a row of TRANSITIONS is a state and an event, and its columns are what a reply of
   each severity makes of the session. None in a column is a reply that cannot answer that event.
2. *A pair that is not in the table is 503*, by construction and not by a check. An extension is rows: its
   events in the states where they are legal, and the states that it adds.

What a state does not say (how many recipients were accepted already) is in ``objection``, below the table.
Rejected is in no row, because it leaves the session where it was. 421 is in none, because it
closes from anywhere. The diagram in docs/protocol.md is drawn from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple, TypeAlias, final

from smtprecv.protocol._config import Config
from smtprecv.protocol._events import (
    Connected,
    Data,
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
    Vrfy,
)
from smtprecv.protocol._refusal import MESSAGE_TOO_BIG, OUT_OF_ORDER, TOO_MANY_RECIPIENTS
from smtprecv.protocol._reply import Reply


@final
class State(Enum):
    """Where a session stands."""

    CONNECTED = auto()
    """The client waits for the greeting."""
    REFUSED = auto()
    """The greeting was no 220: only QUIT is answered (RFC 5321 section 3.1)."""
    GREETED = auto()
    """The client has not said HELO or EHLO."""
    READY = auto()
    """No mail transaction is open."""
    MAIL = auto()
    """There is a reverse-path and no recipient."""
    RCPT = auto()
    """There is a recipient at least."""
    DATA = auto()
    """The client sends the message."""
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
MAIL, RCPT, DATA, CLOSED = State.MAIL, State.RCPT, State.DATA, State.CLOSED


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
                  Hello:         Moves(READY,    None,  GREETED)},
    READY:     _anytime(READY, reset=READY) | {
                  Hello:         Moves(READY,    None,  READY),
                  Mail:          Moves(MAIL,     None,  READY)},
    MAIL:      _anytime(MAIL, reset=READY) | {
                  Hello:         Moves(READY,    None,  MAIL),
                  Rcpt:          Moves(RCPT,     None,  MAIL)},
    RCPT:      _anytime(RCPT, reset=READY) | {
                  Hello:         Moves(READY,    None,  RCPT),
                  Rcpt:          Moves(RCPT,     None,  RCPT),
                  Data:          Moves(None,     DATA,  RCPT)},
    DATA:      {
                  EndOfMailData: Moves(READY,    None,  READY)},
    CLOSED:    {},
}
"""What is legal in each state, and where each reply to it leads."""
# fmt: on

IN_TRANSACTION: Final = frozenset({MAIL, RCPT, DATA})
"""The states in which there is an envelope."""

ENDS_GROUP: Final[frozenset[EventType]] = frozenset(
    # RFC 2920 section 3.2: these must not be buffered. The reply to the mail data is here too: while it is
    # held back, a broken connection makes the client send the message again (RFC 1047).
    {Hello, Data, Vrfy, Expn, Quit, Noop, Rejected, EndOfMailData},
)
"""Events whose replies go out at once, even when more of the pipelined group is there."""


def objection(state: State, event: Event, config: Config, accepted: int) -> Reply | None:
    """Say why ``event`` is not legal now; None if it is. ``accepted``: RCPT commands of this transaction so far."""
    if type(event) not in TRANSITIONS[state]:
        return OUT_OF_ORDER
    match event:
        case Mail(_, parameters) if parameters.size is not None and parameters.size > config.max_message_size:
            return MESSAGE_TOO_BIG  # RFC 1870 section 6.1
        case Rcpt() if accepted >= config.max_recipients:
            return TOO_MANY_RECIPIENTS  # RFC 5321 section 4.5.3.1.10: 452, so that the client sends these later
        case _:
            return None


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
    if event is Rejected:
        return state if is_negative else None
    moves = TRANSITIONS[state].get(event, _NO_MOVES)
    if is_negative:
        return moves.negative
    return moves.completion if is_completion else moves.intermediate


_NO_MOVES: Final = Moves(None, None, None)
