"""Command lines: what each one asks for, and what the protocol refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.protocol import (
    Body,
    Config,
    Connection,
    Data,
    Envelope,
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
    Vrfy,
    parse_forward_path,
    parse_reverse_path,
)
from smtprecv.protocol._commands import COMMANDS, LINE_SIZES, MAX_LINE_SIZE, Context, parse_command
from smtprecv.protocol._refusal import Refusal

CONFIG = Config("mx.example.com", max_message_size=65536)
AFTER_HELO = Context(CONFIG, Session("a.example"), None)
AFTER_EHLO = Context(CONFIG, Session("a.example", is_extended=True), None)
INTERNATIONAL = Context(CONFIG, AFTER_EHLO.session, Envelope(ReversePath(None), MailParameters(smtputf8=True)))

OFFERS = ("PIPELINING", "SIZE 65536", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "HELP")


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
}

REFUSALS = {
    "": "500 5.5.2",
    " QUIT": "500 5.5.2",
    "QUI": "500 5.5.2",
    "QUITE": "500 5.5.2",
    "GET / HTTP/1.1": "500 5.5.2",
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
    "STARTTLS": "502 5.5.1",
    "AUTH PLAIN": "502 5.5.1",
    "BDAT 3 LAST": "502 5.5.1",
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
    "MAIL FROM:<a@example.com> BODY=BINARYMIME": "501 5.5.4",
    "MAIL FROM:<a@example.com> SMTPUTF8=YES": "501 5.5.4",
    "MAIL FROM:<a@example.com> =": "501 5.5.4",
    "MAIL FROM:<a@example.com> -A=1": "501 5.5.4",
    "MAIL FROM:<a@example.com> RET=HDRS": "555 5.5.4",
    "MAIL FROM:<a@example.com>SIZE=1": "501 5.1.7",
    "RCPT": "501 5.5.4",
    "RCPT FROM:<a@example.com>": "501 5.5.4",
    "RCPT TO:<>": "501 5.1.3",
    "RCPT TO:a@example.com": "501 5.1.3",
    "RCPT TO:<a@[X400:b]>": "501 5.1.3",
    "RCPT TO:<a@example.com> NOTIFY=NEVER": "555 5.5.4",
    "RCPT TO:<a@example.com> =": "501 5.5.4",
    "RCPT TO:<ü@example.com>": "553 5.6.7",
}


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


def test_every_verb_is_tried() -> None:
    """The two tables of this file have all verbs that the parser knows."""
    assert {line.split(" ")[0].encode() for line in (*EVENTS, *REFUSALS)} >= set(COMMANDS)


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


def test_the_line_of_mail_is_longer() -> None:
    """SIZE, BODY and SMTPUTF8 lengthen MAIL by 26, 17 and 10 octets.

    RFC 1870 section 3, RFC 6152 section 2, RFC 6531 section 3.1.
    """
    line = b"MAIL FROM:<a@example.com>"
    assert MAX_LINE_SIZE == 565
    assert parse_command(line.ljust(563, b" "), AFTER_EHLO) == mail("a@example.com")
    assert refusal(line.ljust(564, b" ")) == "500 5.5.2"


@given(
    st.binary(max_size=600), st.sampled_from([AFTER_HELO, AFTER_EHLO, INTERNATIONAL]), st.sampled_from(sorted(COMMANDS))
)
def test_any_line_is_an_event_or_a_refusal(octets: bytes, context: Context, verb: bytes) -> None:
    """No line makes a parser raise anything but Refusal."""
    for line in (octets, verb + b" " + octets):
        try:
            parse_command(line, context)
        except Refusal as refused:
            assert refused.reply.code >= 500  # noqa: PT017 - either way is right


@pytest.mark.parametrize("end", [b" ", b"\t", b" \t \t"])
def test_white_space_before_the_crlf_is_tolerated(end: bytes) -> None:
    """RFC 5321 section 4.1.1: blanks and tabs behind a command mean nothing."""
    connection = Connection(Config("mx.example.com"))
    connection.next_event()
    connection.send(Reply(220, "mx.example.com"))
    connection.receive_data(b"NOOP" + end + b"\r\n")

    assert connection.next_event() == Noop()
