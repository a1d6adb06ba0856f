"""Command lines: what each one asks for, and what the protocol refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import (
    Auth,
    AuthResponse,
    Bdat,
    Body,
    Config,
    Connection,
    Data,
    Dialect,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    Reply,
    ReversePath,
    Rset,
    Session,
    StartTls,
    Tls,
    Vrfy,
    Xclient,
    Xforward,
    parse_forward_path,
    parse_reverse_path,
)
from smtprecv.protocol._commands import COMMANDS, LINE_SIZES, MAX_LINE_SIZE, parse_command, parse_response
from smtprecv.protocol._context import Context
from smtprecv.protocol._extensions import offers
from smtprecv.protocol._refusal import BAD_BASE64, Refusal
from smtprecv.protocol._transaction import Transaction

CONFIG = Config("mx.example.com", max_message_size=65536)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
CERTIFIED = replace(TLS, client_name="client.example")
AFTER_HELO = Context(CONFIG, Session("a.example"), None)
AFTER_EHLO = Context(CONFIG, Session("a.example", is_extended=True), None)
INTERNATIONAL_MAIL = Mail(ReversePath(None), MailParameters(smtputf8=True))
INTERNATIONAL = Context(CONFIG, AFTER_EHLO.session, Transaction(INTERNATIONAL_MAIL, INTERNATIONAL_MAIL.parameters))
TRUSTED = Context(replace(CONFIG, xclient=True), AFTER_EHLO.session)

OFFERS = (
    *("PIPELINING", "SIZE 65536", "8BITMIME", "CHUNKING", "BINARYMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"),
    *("DSN", "DELIVERBY", "MT-PRIORITY", "LIMITS RCPTMAX=1000", "HELP"),
)


def mail(path: str, **parameters: int | Body | bool) -> Mail:
    """Make the event of MAIL."""
    size, body, smtputf8 = (parameters.get(name) for name in ("size", "body", "smtputf8"))
    return Mail(
        parse_reverse_path(path),
        MailParameters(
            size if isinstance(size, int) else None,
            body if isinstance(body, Body) else Body.SEVEN_BIT,
            smtputf8=smtputf8 is True,
        ),
    )


def rcpt(path: str) -> Rcpt:
    """Make the event of RCPT."""
    return Rcpt(parse_forward_path(path))


EVENTS: dict[str, Event] = {
    "HELO client.example": Hello("client.example", is_extended=False, offers=()),
    "EHLO client.example": Hello("client.example", is_extended=True, offers=OFFERS),
    "EHLO client.example.": Hello("client.example.", is_extended=True, offers=OFFERS),
    "EHLO localhost": Hello("localhost", is_extended=True, offers=OFFERS),
    "EHLO MY_PC": Hello("MY_PC", is_extended=True, offers=OFFERS),
    "EHLO [192.0.2.1]": Hello("[192.0.2.1]", is_extended=True, offers=OFFERS),
    "EHLO [IPv6:2001:db8::1]": Hello("[IPv6:2001:db8::1]", is_extended=True, offers=OFFERS),
    "EHLO " + "a" * 255: Hello("a" * 255, is_extended=True, offers=OFFERS),
    "MAIL FROM:<>": mail(""),
    "MAIL FROM:<a@example.com>": mail("a@example.com"),
    "MAIL FROM: <a@example.com>": mail("a@example.com"),
    "MAIL from:<a@example.com>": mail("a@example.com"),
    "MAIL FROM:<@relay.example:a@example.com>": mail("a@example.com"),
    "MAIL FROM:<a@example.com> ": mail("a@example.com"),
    "MAIL FROM:<a@example.com> SIZE=0": mail("a@example.com", size=0),
    "MAIL FROM:<a@example.com> size=99999999999999999999": mail("a@example.com", size=10**20 - 1),
    "MAIL FROM:<a@example.com> BODY=7BIT": mail("a@example.com"),
    "MAIL FROM:<a@example.com>  SIZE=9  body=8bitMime ": mail("a@example.com", size=9, body=Body.EIGHT_BIT_MIME),
    "MAIL FROM:<a@example.com> SMTPUTF8": mail("a@example.com", smtputf8=True),
    "MAIL FROM:<ü@example.com> SMTPUTF8": mail("ü@example.com", smtputf8=True),
    "RCPT TO:<a@example.com>": rcpt("a@example.com"),
    "RCPT   TO:<a@example.com>  ": rcpt("a@example.com"),
    "RCPT to: <a@example.com>": rcpt("a@example.com"),
    "RCPT TO:<@relay.example:a@example.com>": rcpt("a@example.com"),
    'RCPT TO:<"a b"@example.com>': rcpt('"a b"@example.com'),
    "RCPT TO:<Postmaster>": rcpt("Postmaster@mx.example.com"),
    "DATA": Data(),
    "DATA ": Data(),
    "RSET": Rset(),
    "QUIT": Quit(),
    "NOOP": Noop(),
    "NOOP a b": Noop(),
    "HELP": Help(""),
    "HELP mail from": Help("mail from"),
    "VRFY Smith": Vrfy("Smith"),
    "VRFY SMTPUTF8": Vrfy("SMTPUTF8"),
    "VRFY ü smtputf8": Vrfy("ü"),
    "EXPN Example People": Expn("Example People"),
    "STARTTLS": StartTls(),
    "AUTH PLAIN": Auth("PLAIN", None),
    "AUTH scram-sha-256": Auth("SCRAM-SHA-256", None),
    "AUTH PLAIN =": Auth("PLAIN", b""),
    "AUTH PLAIN  AGEAYg==": Auth("PLAIN", b"\0a\0b"),
    "AUTH " + "X" * 20: Auth("X" * 20, None),
    "BDAT 0": Bdat(0, is_last=False),
    "BDAT 0 LAST": Bdat(0, is_last=True),
    "BDAT 99999999999999999999  last": Bdat(10**20 - 1, is_last=True),
}

REFUSALS = {
    "": "500 5.5.2",
    " QUIT": "500 5.5.2",
    "QUI": "500 5.5.2",
    "QUITE": "500 5.5.2",
    "MAILFROM:<a@example.com>": "500 5.5.2",
    "ÜBER": "500 5.5.2",
    "NOOP \x1b[2J": "500 5.5.2",
    "NOOP \x85": "500 5.5.2",
    "NOOP \u2028": "500 5.5.2",
    "TURN": "502 5.5.1",
    "SEND FROM:<a@example.com>": "502 5.5.1",
    "SOML FROM:<a@example.com>": "502 5.5.1",
    "SAML FROM:<a@example.com>": "502 5.5.1",
    "ETRN example.com": "502 5.5.1",
    "LHLO client.example": "500 5.5.2",
    "XCLIENT NAME=a": "500 5.5.2",
    "XFORWARD NAME=a": "500 5.5.2",
    "STARTTLS now": "501 5.5.4",
    "AUTH": "501 5.5.4",
    "AUTH PLAIN AGEAYg== b": "501 5.5.4",
    "AUTH PL*IN": "501 5.5.4",
    "AUTH " + "X" * 21: "501 5.5.4",
    "AUTH PLAIN AGEAYg": "501 5.5.2",
    "AUTH PLAIN *": "501 5.5.2",
    "AUTH PLAIN ===": "501 5.5.2",
    "AUTH PLAIN AGE\u00fcAYg==": "501 5.5.2",
    "BDAT": "421 4.5.4",
    "BDAT LAST": "421 4.5.4",
    "BDAT -1": "421 4.5.4",
    "BDAT 1LAST": "421 4.5.4",
    "BDAT 1 FIRST": "421 4.5.4",
    "BDAT \u0661": "421 4.5.4",
    "BDAT 100000000000000000000": "421 4.5.4",
    "HELO": "501 5.5.4",
    "EHLO ": "501 5.5.4",
    "EHLO two words": "501 5.5.4",
    "EHLO <a>": "501 5.5.4",
    "EHLO a(b)": "501 5.5.4",
    "EHLO a;b": "501 5.5.4",
    "EHLO bücher.example": "501 5.5.4",
    "EHLO [192.0.2.1": "501 5.5.4",
    "EHLO []": "501 5.5.4",
    "EHLO " + "a" * 256: "501 5.5.4",
    "DATA now": "501 5.5.4",
    "RSET now": "501 5.5.4",
    "QUIT now": "501 5.5.4",
    "NOOP ü": "501 5.5.4",
    "HELP ü": "501 5.5.4",
    "VRFY": "501 5.5.4",
    "VRFY ü": "501 5.5.4",
    "EXPN": "501 5.5.4",
    "MAIL": "501 5.5.4",
    "MAIL <a@example.com>": "501 5.5.4",
    "MAIL FROM <a@example.com>": "501 5.5.4",
    "MAIL TO:<a@example.com>": "501 5.5.4",
    "MAIL FROM:": "501 5.1.7",
    "MAIL FROM:a@example.com": "501 5.1.7",
    "MAIL FROM:<a>": "501 5.1.7",
    "MAIL FROM:<a@example.com.>": "501 5.1.7",
    "MAIL FROM:<Postmaster>": "501 5.1.7",
    f"MAIL FROM:<{'a' * 65}@example.com>": "501 5.1.7",
    f"MAIL FROM:<{'a' * 64}@{'a.' * 94}aa>": "501 5.1.7",
    "MAIL FROM:<ü@example.com>": "550 5.6.7",
    "MAIL FROM:<a@example.com> SIZE": "501 5.5.4",
    "MAIL FROM:<a@example.com> SIZE=": "501 5.5.4",
    "MAIL FROM:<a@example.com> SIZE=-1": "501 5.5.4",
    "MAIL FROM:<a@example.com> SIZE=1x": "501 5.5.4",
    "MAIL FROM:<a@example.com> SIZE=100000000000000000000": "501 5.5.4",
    "MAIL FROM:<a@example.com> SIZE=1 SIZE=1": "501 5.5.4",
    "MAIL FROM:<a@example.com> BODY": "501 5.5.4",
    "MAIL FROM:<a@example.com> SMTPUTF8=YES": "501 5.5.4",
    "MAIL FROM:<a@example.com> =": "501 5.5.4",
    "MAIL FROM:<a@example.com> -A=1": "501 5.5.4",
    "MAIL FROM:<a@example.com> BODY=BINARY": "501 5.5.4",
    "MAIL FROM:<a@example.com> NOTIFY=NEVER": "555 5.5.4",
    "MAIL FROM:<a@example.com>SIZE=1": "501 5.1.7",
    "RCPT": "501 5.5.4",
    "RCPT FROM:<a@example.com>": "501 5.5.4",
    "RCPT TO:<>": "501 5.1.3",
    "RCPT TO:a@example.com": "501 5.1.3",
    "RCPT TO:<a@[X400:b]>": "501 5.1.3",
    "RCPT TO:<a@example.com> RET=HDRS": "555 5.5.4",
    "RCPT TO:<a@example.com> ORCPT=utf-8;\u00fc@example.com": "553 5.6.7",
    "RCPT TO:<a@example.com> =": "501 5.5.4",
    "RCPT TO:<ü@example.com>": "553 5.6.7",
}


HTTP = (
    *(f"{verb} / HTTP/1.1" for verb in ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "TRACE", "PATCH")),
    *("CONNECT mx.example.com:25 HTTP/1.1", "PRI * HTTP/2.0"),
    *("Host: mx.example.com", "User-Agent: a", "Content-Length: 9", "Content-Type: text/plain"),
)


def refusal(line: bytes, context: Context = AFTER_EHLO) -> str:
    """Give the code and the status of the refusal that a line is due."""
    with pytest.raises(Refusal) as refused:
        parse_command(line, context)
    return f"{refused.value.reply.code} {refused.value.reply.status}"


def spellings(line: str) -> list[bytes]:
    """Write a line with its verb in every case."""
    verb, *rest = line.split(" ", 1)
    return [" ".join([way, *rest]).encode() for way in (verb, verb.lower(), verb.capitalize(), verb.swapcase())]


@pytest.mark.parametrize(("line", "event"), EVENTS.items())
def test_a_line_asks(line: str, event: Event) -> None:
    """A line is its event, whatever the case of its verb (RFC 5321 section 2.4)."""
    assert [event] * 4 == [parse_command(spelling, AFTER_EHLO) for spelling in spellings(line)]


@pytest.mark.parametrize(("line", "expected"), REFUSALS.items())
def test_a_line_is_refused(line: str, expected: str) -> None:
    """A line that is no command is refused with the code and status of its fault.

    RFC 5321 sections 4.2.2, 4.2.4 and 4.5.3.1.9.
    """
    assert [expected] * 4 == [refusal(spelling) for spelling in spellings(line)]


@pytest.mark.parametrize("line", HTTP)
def test_http_is_hung_up_on(line: str) -> None:
    """Who was made to speak HTTP here is not listened to: what stands in the body could be commands."""
    assert ["421 4.7.0"] * 4 == [refusal(spelling) for spelling in spellings(line)]


def test_every_verb_is_tried() -> None:
    """The two tables of this file have all verbs that the parser knows."""
    lines = (*EVENTS, *REFUSALS, *HTTP)
    assert {line.split(" ")[0].upper().encode() for line in lines} >= set(COMMANDS)


@pytest.mark.parametrize("word", ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "X"])
def test_there_are_no_parameters_after_helo(word: str) -> None:
    """What EHLO has not announced is not known (RFC 5321 section 4.1.1.11)."""
    assert refusal(f"MAIL FROM:<a@example.com> {word}".encode(), AFTER_HELO) == "555 5.5.4"


def test_smtputf8_needs_ehlo() -> None:
    """After HELO, SMTPUTF8 is but a word behind the argument of VRFY (RFC 6531 section 3.7.4.2)."""
    assert parse_command(b"VRFY a SMTPUTF8", AFTER_HELO) == Vrfy("a SMTPUTF8")


def test_a_non_ascii_recipient_in_an_internationalized_transaction() -> None:
    """A recipient may be non-ASCII if MAIL had SMTPUTF8 (RFC 6531 section 3.4)."""
    assert parse_command("RCPT TO:<ü@example.com>".encode(), INTERNATIONAL) == rcpt("ü@example.com")


def test_what_is_no_utf_8_is_refused() -> None:
    """Octets above 127 are UTF-8 or nothing (RFC 6531 section 3.3)."""
    assert refusal(b"RCPT TO:<\xfc@example.com>", INTERNATIONAL) == "500 5.5.2"


@pytest.mark.parametrize("verb", sorted(set(COMMANDS) - set(LINE_SIZES)))
def test_a_command_line_is_limited(verb: bytes) -> None:
    """512 octets with CRLF, for every verb that no extension lengthens (RFC 5321 section 4.5.3.1.4)."""
    line = verb.ljust(511, b" ")
    assert refusal(line) == "500 5.5.2"
    if verb == b"NOOP":
        assert parse_command(line[:-1], AFTER_EHLO) == Noop()


@pytest.mark.parametrize(
    ("line", "size"),
    [
        # In the order of the docstring, RFC 3461 twice.
        (b"MAIL FROM:<a@example.com>", 512 + 26 + 17 + 10 + 107 + 9 + 17 + 15 + 11 + 500),
        (b"RCPT TO:<a@example.com>", 512 + 530),
        (b"AUTH PLAIN", 12288),
        (b"XCLIENT NAME=a", 1024),
        (b"XFORWARD NAME=a", 1024),
    ],
    ids=lambda value: value.split()[0].decode() if isinstance(value, bytes) else "",
)
def test_extensions_lengthen_lines(line: bytes, size: int) -> None:
    """Each parameter lengthens its command by what its RFC says; all else stays at 512 octets.

    RFC 1870 section 3, RFC 6152 section 2, RFC 6531 section 3.1, RFC 3461 section 5.4, RFC 2852 section 3,
    RFC 6710 section 3, RFC 8689 section 2, RFC 4954 section 3.
    """
    verb = line.split()[0]
    assert size == LINE_SIZES[verb] <= MAX_LINE_SIZE
    longest = line.replace(b" ", b" " * (size - len(line) - 1), 1)
    assert len(longest + b"\r\n") == size
    assert parse_command(line, TRUSTED) == parse_command(longest, TRUSTED)
    assert refusal(longest.replace(b" ", b"  ", 1), TRUSTED) == "500 5.5.2"


def test_lmtp_greets_in_its_own_way() -> None:
    """LHLO is EHLO by another name, and HELO and EHLO are not known in LMTP (RFC 2033 section 4.1)."""
    lmtp = Context(replace(CONFIG, dialect=Dialect.LMTP), Session(dialect=Dialect.LMTP))
    assert parse_command(b"LHLO client.example", lmtp) == Hello("client.example", is_extended=True, offers=OFFERS)
    assert refusal(b"LHLO", lmtp) == "501 5.5.4"
    assert [refusal(verb + b" client.example", lmtp) for verb in (b"HELO", b"EHLO")] == ["500 5.5.2"] * 2


ATTRIBUTES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "NAME=spike.example": (("NAME", "spike.example"),),
    "addr=192.0.2.1  Port=25": (("ADDR", "192.0.2.1"), ("PORT", "25")),
    "ADDR=IPV6:2001:db8::1": (("ADDR", "IPV6:2001:db8::1"),),
    "NAME=[UNAVAILABLE] ADDR=[tempunavail]": (("NAME", None), ("ADDR", None)),
    "LOGIN=a+2Bb+20c+3Dd": (("LOGIN", "a+b c=d"),),
    "HELO=b\u00fccher.example": (("HELO", "b\u00fccher.example"),),
    "HELO=b+C3+BCcher.example": (("HELO", "b\u00fccher.example"),),
}


@pytest.mark.parametrize(("text", "attributes"), ATTRIBUTES.items())
def test_attributes(text: str, attributes: tuple[tuple[str, str | None], ...]) -> None:
    """The attributes of XCLIENT and XFORWARD have no case in their names, and their values are decoded."""
    assert parse_command(f"XCLIENT {text}".encode(), TRUSTED) == Xclient(attributes)
    assert parse_command(f"xforward {text} ".encode(), TRUSTED) == Xforward(attributes)


@pytest.mark.parametrize(
    "text",
    [
        *("", "NAME", "NAME=", "=a", "NAME=a=b", "NAME=a name=b", "N_ME=a", "X" * 21 + "=a"),
        *("NAME=a+2", "NAME=a+2b", "NAME=a+G0", "NAME=+FF", "HELO=a+0D+0AX-Evil:+201", "HELO=+00", "HELO=+C2+85"),
        *("HELO=+E2+80+A8", "HELO=+1B[2J"),
    ],
)
@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
def test_attributes_are_refused(verb: str, text: str) -> None:
    """What is malformed, given twice, or has a control character once it is decoded is 501."""
    assert refusal(f"{verb} {text}".encode(), TRUSTED) == "501 5.5.4"


@given(
    st.binary(max_size=600),
    st.sampled_from([AFTER_HELO, AFTER_EHLO, INTERNATIONAL, TRUSTED]),
    st.sampled_from(sorted(COMMANDS)),
)
def test_any_line_is_an_event_or_a_refusal(octets: bytes, context: Context, verb: bytes) -> None:
    """No line makes a parser raise anything but Refusal."""
    for line in (octets, verb + b" " + octets):
        try:
            parse_command(line, context)
        except Refusal as refused:
            assert refused.reply.code >= 500 or refused.reply.code == 421  # noqa: PT017 - either way is right


@pytest.mark.parametrize(
    ("line", "response"),
    [(b"", b""), (b"*", None), (b"AGEAYg==", b"\0a\0b"), (b"QUIT", b"AB\x13")],
)
def test_responses(line: bytes, response: bytes | None) -> None:
    """The answer to a challenge is base64, perhaps of nothing, or * to give up.

    RFC 4954 section 4, RFC 4648 section 4.
    """
    assert parse_response(line) == AuthResponse(response)


@pytest.mark.parametrize(
    "line",
    [
        b"=",
        b"A",
        b"AGEAYg",
        b"AGEAYg===",
        b"AGEA=",
        b"AGEA====",
        b"YQ==YQ==",
        b"AGEA Yg==",
        b"AGEA*Yg=",
        b"**",
        b"\xff\xff\xff\xff",
    ],
)
def test_responses_are_refused(line: bytes) -> None:
    """What is no base64 is 501 5.5.2 (RFC 4954 section 4, RFC 4648 section 4)."""
    with pytest.raises(Refusal) as refused:
        parse_response(line)
    assert refused.value.reply is BAD_BASE64


def test_no_secret_is_shown() -> None:
    """A client's response is not in what is logged of an event."""
    assert repr(Auth("PLAIN", b"secret")) == "Auth('PLAIN')"
    assert repr(AuthResponse(b"secret")) == "AuthResponse()"


AUTH = replace(CONFIG, auth=("PLAIN", "EXTERNAL"))
CLEAR = Session()
IN_TLS = Session(tls=TLS)
XCLIENT = (
    "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
    "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
)


@pytest.mark.parametrize(
    ("config", "session", "offered"),
    [
        (replace(CONFIG, starttls=True), CLEAR, ("STARTTLS",)),
        (replace(CONFIG, starttls=True), IN_TLS, ("REQUIRETLS",)),
        (AUTH, CLEAR, ()),
        (replace(AUTH, auth_without_tls=True), CLEAR, ("AUTH PLAIN",)),
        (AUTH, IN_TLS, ("REQUIRETLS", "AUTH PLAIN")),
        (replace(AUTH, auth=("EXTERNAL",)), IN_TLS, ("REQUIRETLS",)),
        (AUTH, Session(tls=CERTIFIED), ("REQUIRETLS", "AUTH PLAIN EXTERNAL")),
        (AUTH, Session(tls=TLS, identity="anna"), ("REQUIRETLS",)),
        (replace(CONFIG, xclient=True), CLEAR, XCLIENT),
    ],
)
def test_only_what_can_be_had_is_offered(config: Config, session: Session, offered: tuple[str, ...]) -> None:
    """STARTTLS in clear alone, REQUIRETLS inside alone, AUTH where it is possible, XCLIENT to the trusted alone."""
    assert (*OFFERS[:-1], *offered, "HELP") == offers(config, session)


def test_limits_are_announced() -> None:
    """RFC 9422 section 4: MAILMAX where there is one, and RCPTMAX."""
    words = offers(replace(CONFIG, max_transactions=20, max_recipients=100), Session())
    assert "LIMITS MAILMAX=20 RCPTMAX=100" in words


@pytest.mark.parametrize("end", [b" ", b"\t", b" \t \t"])
def test_white_space_before_the_crlf_is_tolerated(end: bytes) -> None:
    """RFC 5321 section 4.1.1: blanks and tabs behind a command mean nothing."""
    connection = Connection(Config("mx.example.com"))
    connection.next_event()
    connection.send(Reply(220, "mx.example.com"))
    connection.receive_data(b"NOOP" + end + b"\r\n")

    assert connection.next_event() == Noop()
