"""The transition table, and the functions that stand beside it."""

from __future__ import annotations

from typing import get_args

import pytest

from smtprecv.protocol import (
    ENDS_GROUP,
    TRANSITIONS,
    Config,
    Connected,
    Data,
    Domain,
    EndOfMailData,
    Event,
    ForwardPath,
    Hello,
    Mail,
    Mailbox,
    MailParameters,
    Quit,
    Rcpt,
    Rejected,
    Reply,
    ReversePath,
    Rset,
    State,
    after_reply,
)
from smtprecv.protocol._state import IN_TRANSACTION, EventType, objection

# In each cell: where 2yz, 3yz and 4yz or 5yz lead; an empty cell is 503 (RFC 5321 sections 3.1, 3.8, 4.1.4).
MATRIX = """
              CONNECTED            REFUSED             GREETED             READY               MAIL                RCPT                DATA
Connected     GREETED/-/REFUSED    .                   .                   .                   .                   .                   .
Hello         .                    .                   READY/-/GREETED     READY/-/READY       READY/-/MAIL        READY/-/RCPT        .
Mail          .                    .                   .                   MAIL/-/READY        .                   .                   .
Rcpt          .                    .                   .                   .                   RCPT/-/MAIL         RCPT/-/RCPT         .
Data          .                    .                   .                   .                   .                   -/DATA/RCPT         .
EndOfMailData .                    .                   .                   .                   .                   .                   READY/-/READY
Rset          .                    .                   GREETED/-/GREETED   READY/-/READY       READY/-/MAIL        READY/-/RCPT        .
Noop          .                    .                   GREETED/-/GREETED   READY/-/READY       MAIL/-/MAIL         RCPT/-/RCPT         .
Help          .                    .                   GREETED/-/GREETED   READY/-/READY       MAIL/-/MAIL         RCPT/-/RCPT         .
Vrfy          .                    .                   GREETED/-/GREETED   READY/-/READY       MAIL/-/MAIL         RCPT/-/RCPT         .
Expn          .                    .                   GREETED/-/GREETED   READY/-/READY       MAIL/-/MAIL         RCPT/-/RCPT         .
Quit          .                    CLOSED/-/REFUSED    CLOSED/-/GREETED    CLOSED/-/READY      CLOSED/-/MAIL       CLOSED/-/RCPT       .
"""  # noqa: E501 - a table

EVENTS: tuple[EventType, ...] = get_args(Event)
SEVERITIES = {"completion": 250, "intermediate": 354, "negative": 550}

CONFIG = Config("mx.example.com", max_message_size=65536, max_recipients=100)
RCPT = Rcpt(ForwardPath(Mailbox("b", Domain("example.org"))))


def written(state: State, event: EventType) -> str:
    """Write what the table has for a pair as the matrix does."""
    moves = TRANSITIONS[state].get(event)
    return "." if moves is None else "/".join("-" if there is None else there.name for there in moves)


def test_the_table_is_the_matrix_of_the_rfc() -> None:
    """The table holds the pairs that RFC 5321 allows, and no other (RFC 5321 sections 3.1, 3.3 and 4.1.4)."""
    head, *rows = (line.split() for line in MATRIX.strip().splitlines())
    assert [*head, "CLOSED"] == [state.name for state in State]
    names = {event.__name__: event for event in EVENTS}
    expected = {(State[state], names[row[0]]): cell for row in rows for state, cell in zip(head, row[1:], strict=True)}
    actual = {(state, event): written(state, event) for state in State for event in EVENTS}
    assert {pair: expected.get(pair, ".") for pair in actual} == actual


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_reply_moves_inside_the_table_or_is_refused(state: State, event: EventType, severity: str) -> None:
    """Every pair and severity leads where its column says; a pair that has none leads nowhere."""
    code = 221 if event is Quit and severity == "completion" else SEVERITIES[severity]
    moves = TRANSITIONS[state].get(event)
    expected = None if moves is None else getattr(moves, severity)
    if event is Rejected:
        expected = state if severity == "negative" else None
    assert expected == after_reply(state, event, code)


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
@pytest.mark.parametrize("event", [None, *EVENTS])
def test_421_closes_from_everywhere(state: State, event: EventType | None) -> None:
    """421 ends the session in every state, with an open event or without (RFC 5321 section 3.8)."""
    assert after_reply(state, event, 421) is State.CLOSED


def test_nothing_can_be_said_when_closed() -> None:
    """The session ends once."""
    assert [None] * 3 == [after_reply(State.CLOSED, None, code) for code in (250, 421, 550)]


def test_only_421_needs_no_event() -> None:
    """A server speaks when it is asked."""
    assert [None] * 3 == [after_reply(State.READY, None, code) for code in (220, 354, 451)]


def test_221_and_quit_belong_together() -> None:
    """221 is no answer to anything but QUIT, and no other completion answers QUIT.

    RFC 5321 sections 4.1.1.10 and 4.3.2.
    """
    assert after_reply(State.READY, Rset, 221) is None
    assert after_reply(State.READY, Quit, 250) is None
    assert after_reply(State.READY, Quit, 221) is State.CLOSED


def test_every_state_can_be_reached() -> None:
    """No row of the table is dead."""
    reached = {State.CONNECTED}
    for _ in State:
        reached |= {there for here in reached for moves in TRANSITIONS[here].values() for there in moves if there}
    assert set(State) == reached


def test_quit_is_possible_wherever_commands_are_read() -> None:
    """A client may leave at any time but in the greeting and in its message."""
    assert {state for state in State if Quit not in TRANSITIONS[state]} == {State.CONNECTED, State.DATA, State.CLOSED}


def test_an_envelope_is_there_between_mail_and_the_end() -> None:
    """The states of a transaction are those that MAIL leads to and the end of mail data leads out of."""
    assert frozenset({State.MAIL, State.RCPT, State.DATA}) == IN_TRANSACTION


@pytest.mark.parametrize(
    ("state", "event", "code"),
    [
        (State.READY, Data(), 503),
        (State.MAIL, Data(), 503),
        (State.MAIL, Mail(ReversePath(None), MailParameters()), 503),
        (State.READY, Mail(ReversePath(None), MailParameters(size=65537)), 552),
        (State.READY, Mail(ReversePath(None), MailParameters(size=65536)), None),
        (State.READY, Mail(ReversePath(None), MailParameters()), None),
        (State.RCPT, RCPT, None),
        (State.REFUSED, Hello("a.example", is_extended=True, offers=()), 503),
    ],
)
def test_objections(state: State, event: Event, code: int | None) -> None:
    """A pair outside the table is 503, and what is too big is refused when it is declared (RFC 1870 section 6.1)."""
    reply = objection(state, event, CONFIG, accepted=0)
    assert code == (None if reply is None else reply.code)


def test_too_many_recipients() -> None:
    """The recipient after the last possible one is 452, so that it is tried again (RFC 5321 section 4.5.3.1.10)."""
    full = objection(State.RCPT, RCPT, CONFIG, accepted=100)
    assert isinstance(full, Reply)
    assert (452, "4.5.3") == (full.code, str(full.status))
    assert objection(State.RCPT, RCPT, CONFIG, accepted=99) is None


def test_groups_end_where_the_rfc_says() -> None:
    """Replies to these may not wait for more of the group (RFC 2920 section 3.2); those to MAIL, RCPT and RSET may."""
    assert {"Hello", "Data", "Vrfy", "Expn", "Quit", "Noop", "Rejected", "EndOfMailData"} == {
        event.__name__ for event in ENDS_GROUP
    }
    assert not {Mail, Rcpt, Rset, Connected} & ENDS_GROUP
    assert EndOfMailData in ENDS_GROUP
