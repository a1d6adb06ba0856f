"""The transition table, and the functions that stand beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from smtprecv.protocol import (
    ENDS_GROUP,
    TRANSITIONS,
    Auth,
    Bdat,
    Body,
    Config,
    Connected,
    Data,
    Domain,
    EndOfChunk,
    Event,
    Expn,
    ForwardPath,
    Hello,
    Help,
    Mail,
    Mailbox,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    Rejected,
    Reply,
    ReversePath,
    Rset,
    Session,
    StartTls,
    State,
    Tls,
    Vrfy,
    Xclient,
    Xforward,
    after_reply,
)
from smtprecv.protocol._context import Context
from smtprecv.protocol._refusal import (
    AUTH_LINE_TOO_LONG,
    AUTH_REQUIRED,
    BAD_BASE64,
    LINE_TOO_LONG,
    OUT_OF_ORDER,
    TLS_REQUIRED,
    UNKNOWN_COMMAND,
)
from smtprecv.protocol._state import IN_TRANSACTION, EventType, objection, redacted
from smtprecv.protocol._transaction import Transaction

# In each cell: where 2yz, 3yz and 4yz or 5yz lead; an empty cell is 503 (RFC 5321 sections 3.1, 3.8, 4.1.4). Beyond
# them: RFC 3207 section 4 and RFC 4954 section 4, neither in a transaction; RFC 3030 section 2, no DATA behind BDAT.
MATRIX = """
              CONNECTED         REFUSED          GREETED           READY             AUTH             MAIL          RCPT          DATA          CHUNK           CHUNKED
Connected     GREETED/-/REFUSED .                .                 .                 .                .             .             .             .               .
Hello         .                 .                READY/-/GREETED   READY/-/READY     .                READY/-/MAIL  READY/-/RCPT  .             .               READY/-/CHUNKED
StartTls      .                 .                .                 TLS/-/READY       .                .             .             .             .               .
Auth          .                 .                .                 READY/AUTH/READY  .                .             .             .             .               .
AuthResponse  .                 .                .                 .                 READY/AUTH/READY .             .             .             .               .
Xclient       .                 .                GREETED/-/REFUSED GREETED/-/REFUSED .                .             .             .             .               .
Xforward      .                 .                .                 READY/-/READY     .                .             .             .             .               .
Mail          .                 .                .                 MAIL/-/READY      .                .             .             .             .               .
Rcpt          .                 .                .                 .                 .                RCPT/-/MAIL   RCPT/-/RCPT   .             .               .
Data          .                 .                .                 .                 .                .             -/DATA/RCPT   .             .               .
Bdat          .                 .                .                 .                 .                .             CHUNK/-/-     .             .               CHUNK/-/-
EndOfChunk    .                 .                .                 .                 .                .             .             .             CHUNKED/-/READY .
EndOfMailData .                 .                .                 .                 .                .             .             READY/-/READY READY/-/READY   .
Rset          .                 .                GREETED/-/GREETED READY/-/READY     .                READY/-/MAIL  READY/-/RCPT  .             .               READY/-/CHUNKED
Noop          .                 .                GREETED/-/GREETED READY/-/READY     .                MAIL/-/MAIL   RCPT/-/RCPT   .             .               CHUNKED/-/CHUNKED
Help          .                 .                GREETED/-/GREETED READY/-/READY     .                MAIL/-/MAIL   RCPT/-/RCPT   .             .               CHUNKED/-/CHUNKED
Vrfy          .                 .                GREETED/-/GREETED READY/-/READY     .                MAIL/-/MAIL   RCPT/-/RCPT   .             .               CHUNKED/-/CHUNKED
Expn          .                 .                GREETED/-/GREETED READY/-/READY     .                MAIL/-/MAIL   RCPT/-/RCPT   .             .               CHUNKED/-/CHUNKED
Quit          .                 CLOSED/-/REFUSED CLOSED/-/GREETED  CLOSED/-/READY    .                CLOSED/-/MAIL CLOSED/-/RCPT .             .               CLOSED/-/CHUNKED
Rejected      .                 .                .                 .                 -/-/READY        .             .             .             .               .
"""  # noqa: E501 - a table

EVENTS: tuple[EventType, ...] = get_args(Event)
SEVERITIES = {"completion": 250, "intermediate": 354, "negative": 550}

CONFIG = Config("mx.example.com", max_message_size=65536, max_recipients=100)
STARTTLS = replace(CONFIG, starttls=True)
AUTH = replace(CONFIG, auth=("PLAIN", "EXTERNAL"))
EXTENDED = Session("a.example", is_extended=True)
IN_TLS = replace(EXTENDED, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
CERTIFIED = replace(EXTENDED, tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", client_name="a.example"))
CONTEXT = Context(CONFIG, EXTENDED)
HELLO = Hello("a.example", is_extended=True, offers=())
NULL_MAIL = Mail(ReversePath(None), MailParameters())
RCPT = Rcpt(ForwardPath(Mailbox("b", Domain("example.org"))))


def code_of(reply: Reply | None) -> int | None:
    """Give the code of what may be a reply."""
    return None if reply is None else reply.code


def written(state: State, event: EventType) -> str:
    """Write what the table has for a pair as the matrix does."""
    moves = TRANSITIONS[state].get(event)
    return "." if moves is None else "/".join("-" if there is None else there.name for there in moves)


def test_the_table_is_the_matrix_of_the_rfc() -> None:
    """The table holds the pairs that RFC 5321 sections 3.1, 3.3 and 4.1.4 and its extensions allow, and no other."""
    head, *rows = (line.split() for line in MATRIX.strip().splitlines())
    assert [*head, "TLS", "CLOSED"] == [state.name for state in State]
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
    if event is Rejected and moves is None:
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
    """A client may leave at any time but in the greeting, in its message, and where it answers a challenge."""
    no_commands = {State.CONNECTED, State.AUTH, State.DATA, State.CHUNK, State.TLS, State.CLOSED}
    assert no_commands == {state for state in State if Quit not in TRANSITIONS[state]}


def test_an_envelope_is_there_between_mail_and_the_end() -> None:
    """The states of a transaction are those that MAIL leads to and the end of mail data leads out of."""
    assert frozenset({State.MAIL, State.RCPT, State.DATA, State.CHUNK, State.CHUNKED}) == IN_TRANSACTION


@pytest.mark.parametrize(
    ("state", "event", "code"),
    [
        (State.READY, Data(), 503),
        (State.MAIL, Data(), 503),
        (State.MAIL, NULL_MAIL, 503),
        (State.READY, Mail(ReversePath(None), MailParameters(size=65537)), 552),
        (State.READY, Mail(ReversePath(None), MailParameters(size=65536)), None),
        (State.READY, NULL_MAIL, None),
        (State.RCPT, RCPT, None),
        (State.REFUSED, HELLO, 503),
        (State.CHUNKED, Data(), 503),
        (State.CHUNKED, RCPT, 503),
        (State.CHUNKED, Bdat(0, is_last=True), None),
        (State.MAIL, Bdat(0, is_last=True), 503),
    ],
)
def test_objections(state: State, event: Event, code: int | None) -> None:
    """A pair outside the table is 503, and what is too big is refused when it is declared (RFC 1870 section 6.1)."""
    assert code == code_of(objection(state, event, CONTEXT))


def test_too_many_recipients() -> None:
    """The recipient after the last possible one is 452, so that it is tried again (RFC 5321 section 4.5.3.1.10)."""
    transaction = Transaction(NULL_MAIL, NULL_MAIL.parameters)
    for _ in range(99):
        transaction.add(RCPT, ())
    context = replace(CONTEXT, transaction=transaction)
    assert objection(State.RCPT, RCPT, context) is None
    transaction.add(RCPT, (RCPT.forward_path, RCPT.forward_path))
    full = objection(State.RCPT, RCPT, context)
    assert isinstance(full, Reply)
    assert (452, "4.5.3") == (full.code, str(full.status))


def test_too_many_transactions() -> None:
    """The MAIL past MAILMAX is 452, so that the client comes again (RFC 9422 section 4.1)."""
    limited = replace(CONTEXT, config=replace(CONFIG, max_transactions=2))
    codes = [code_of(objection(State.READY, NULL_MAIL, replace(limited, transactions=count))) for count in (0, 1, 2)]
    assert codes == [None, None, 452]
    assert objection(State.READY, NULL_MAIL, replace(CONTEXT, transactions=10**6)) is None


COMMANDS: tuple[tuple[State, Event], ...] = (
    (State.GREETED, HELLO),
    (State.READY, Noop()),
    (State.READY, Quit()),
    (State.READY, Rset()),
    (State.READY, Help("")),
    (State.READY, Vrfy("a")),
    (State.READY, Expn("a")),
    (State.READY, StartTls()),
    (State.READY, Auth("PLAIN", None)),
    (State.READY, Xclient((("NAME", None),))),
    (State.READY, Xforward((("NAME", None),))),
    (State.READY, NULL_MAIL),
    (State.MAIL, RCPT),
    (State.RCPT, Data()),
    (State.RCPT, Bdat(1, is_last=True)),
)


@pytest.mark.parametrize(("state", "event"), COMMANDS, ids=lambda value: type(value).__name__)
def test_tls_may_be_demanded(state: State, event: Event) -> None:
    """Outside of TLS all is 530 then but what leads to it, and inside nothing is (RFC 3207 section 4)."""
    config = replace(CONFIG, requires_tls=True, starttls=True, auth=("PLAIN",))
    allowed = isinstance(event, Hello | Noop | Quit | StartTls | Xclient | Xforward)
    assert objection(state, event, Context(config, EXTENDED)) is (None if allowed else TLS_REQUIRED)
    assert objection(state, event, Context(config, IN_TLS)) is not TLS_REQUIRED


@pytest.mark.parametrize(("state", "event"), COMMANDS, ids=lambda value: type(value).__name__)
def test_auth_may_be_demanded(state: State, event: Event) -> None:
    """Without an identity MAIL is 530 then, and what tells of mailboxes (RFC 4954 section 6)."""
    config = replace(CONFIG, requires_auth=True)
    refused = isinstance(event, Mail | Vrfy | Expn)
    assert (objection(state, event, Context(config, EXTENDED)) is AUTH_REQUIRED) is refused
    assert objection(state, event, Context(config, replace(EXTENDED, identity="anna"))) is not AUTH_REQUIRED


@pytest.mark.parametrize(
    ("config", "session", "is_followed", "code"),
    [
        (CONFIG, EXTENDED, False, 502),
        (STARTTLS, EXTENDED, False, None),
        (STARTTLS, EXTENDED, True, 503),
        (STARTTLS, IN_TLS, False, 503),
        (STARTTLS, Session("a.example"), False, 503),
    ],
    ids=["not there", "sound", "followed", "twice", "after HELO"],
)
def test_starttls(config: Config, session: Session, *, is_followed: bool, code: int | None) -> None:
    """Once, after EHLO, where it is offered, and with nothing behind it (RFC 3207 sections 4 and 4.2)."""
    assert code == code_of(objection(State.READY, StartTls(), Context(config, session, is_followed=is_followed)))


@pytest.mark.parametrize(
    ("config", "session", "mechanism", "code"),
    [
        (CONFIG, IN_TLS, "PLAIN", 502),
        (AUTH, IN_TLS, "PLAIN", None),
        (AUTH, EXTENDED, "PLAIN", 538),
        (AUTH, EXTENDED, "NTLM", 504),
        (AUTH, IN_TLS, "NTLM", 504),
        (AUTH, replace(IN_TLS, is_extended=False), "PLAIN", 503),
        (AUTH, replace(IN_TLS, identity="anna"), "PLAIN", 503),
        (AUTH, IN_TLS, "EXTERNAL", 504),
        (AUTH, CERTIFIED, "EXTERNAL", None),
        (replace(AUTH, auth_without_tls=True), EXTENDED, "PLAIN", None),
        (replace(AUTH, auth_without_tls=True), EXTENDED, "EXTERNAL", 538),
        (replace(AUTH, auth=("EXTERNAL",)), IN_TLS, "EXTERNAL", 504),
    ],
)
def test_auth(config: Config, session: Session, mechanism: str, code: int | None) -> None:
    """Once, after EHLO, in TLS or where that is not asked for, and only what is offered (RFC 4954 section 4)."""
    assert code == code_of(objection(State.READY, Auth(mechanism, None), Context(config, session)))


@pytest.mark.parametrize(
    ("config", "session", "parameters", "code"),
    [
        (CONFIG, EXTENDED, MailParameters(require_tls=True), 555),
        (CONFIG, IN_TLS, MailParameters(require_tls=True), None),
        (CONFIG, EXTENDED, MailParameters(auth=""), 555),
        (AUTH, EXTENDED, MailParameters(auth=""), None),
    ],
)
def test_parameters_not_offered(config: Config, session: Session, parameters: MailParameters, code: int | None) -> None:
    """REQUIRETLS belongs into TLS (RFC 8689 section 2), and the parameter AUTH to AUTH (RFC 4954 section 3)."""
    assert code == code_of(objection(State.READY, Mail(ReversePath(None), parameters), Context(config, session)))


def test_binary_mail_needs_chunks() -> None:
    """DATA could not hold it: 503, where BDAT is legal (RFC 3030 section 3)."""
    binary = Transaction(NULL_MAIL, MailParameters(body=Body.BINARY_MIME))
    for transaction, code in ((binary, 503), (Transaction(NULL_MAIL, NULL_MAIL.parameters), None), (None, None)):
        context = replace(CONTEXT, transaction=transaction)
        assert code == code_of(objection(State.RCPT, Data(), context))
        assert objection(State.RCPT, Bdat(1, is_last=False), context) is None


@pytest.mark.parametrize(
    ("state", "line", "reply", "expected"),
    [
        (State.AUTH, b"c2VjcmV0", BAD_BASE64, Rejected(b"", BAD_BASE64)),
        (State.AUTH, b"c2VjcmV0", LINE_TOO_LONG, Rejected(b"", AUTH_LINE_TOO_LONG)),
        (State.READY, b"AUTH PLAIN c2VjcmV0", OUT_OF_ORDER, Rejected(b"AUTH", OUT_OF_ORDER)),
        (State.MAIL, b"  auth PLAIN c2VjcmV0", UNKNOWN_COMMAND, Rejected(b"auth", UNKNOWN_COMMAND)),
        (State.READY, b"AUTH PLAIN c2VjcmV0", LINE_TOO_LONG, Rejected(b"AUTH", AUTH_LINE_TOO_LONG)),
        (State.READY, b"NOOP c2VjcmV0", LINE_TOO_LONG, Rejected(b"NOOP c2VjcmV0", LINE_TOO_LONG)),
    ],
)
def test_no_secret_is_kept(state: State, line: bytes, reply: Reply, expected: Rejected) -> None:
    """Of a refused line of an AUTH exchange nothing is left that could be a password."""
    assert expected == redacted(Rejected(line, reply), state)


def test_groups_end_where_the_rfc_says() -> None:
    """Replies to these may not wait for more of the group (RFC 2920 section 3.2); others may, as that to BDAT."""
    expected = {"Hello", "Data", "Vrfy", "Expn", "Quit", "Noop", "Rejected", "EndOfMailData"}
    expected |= {"StartTls", "Auth", "AuthResponse", "Xclient", "Xforward"}
    assert expected == {event.__name__ for event in ENDS_GROUP}
    assert not {Mail, Rcpt, Rset, Connected, EndOfChunk} & ENDS_GROUP
