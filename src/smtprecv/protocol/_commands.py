"""The second table: verbs to parsers. What a line says is decided here, whether it may be said is not.

A parser takes the text behind the verb and gives an event, or leaves with a Refusal. It knows the
session only as far as the grammar depends on it: after HELO there are no parameters, and an
address may be non-ASCII only where SMTPUTF8 was declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from smtprecv.protocol._config import Config
from smtprecv.protocol._envelope import Envelope, MailParameters, Session
from smtprecv.protocol._events import Data, Event, Expn, Hello, Help, Mail, Noop, Quit, Rcpt, Rset, Vrfy
from smtprecv.protocol._extensions import offers
from smtprecv.protocol._grammar import read_forward_path, read_reverse_path
from smtprecv.protocol._parameters import MAIL_PARAMETERS, NO_MAIL_PARAMETERS, RCPT_PARAMETERS, parse_parameters
from smtprecv.protocol._refusal import (
    BAD_HELLO,
    BAD_OCTETS,
    LINE_TOO_LONG,
    MAIL_SYNTAX,
    MISSING_ARGUMENT,
    NO_ARGUMENT,
    NON_ASCII_ARGUMENT,
    NON_ASCII_RECIPIENT,
    NON_ASCII_SENDER,
    NOT_IMPLEMENTED,
    RCPT_SYNTAX,
    UNKNOWN_COMMAND,
    Refusal,
    bad_recipient,
    bad_sender,
)

COMMAND_LINE_SIZE: Final = 512
"""Octets of a command line, CRLF included (RFC 5321 section 4.5.3.1.4)."""
LINE_SIZES: Final[Mapping[bytes, int]] = {
    # RFC 1870 section 3: SIZE adds 26; RFC 6152 section 2: BODY adds 17; RFC 6531 section 3.1: SMTPUTF8 adds 10.
    b"MAIL": COMMAND_LINE_SIZE + 26 + 17 + 10,
}
"""The verbs whose lines may be longer."""
MAX_LINE_SIZE: Final = max(LINE_SIZES.values())
"""Octets of the longest line that any command may have, CRLF included."""

_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FROM: Final = re.compile(r"FROM: *", re.IGNORECASE)
_TO: Final = re.compile(r"TO: *", re.IGNORECASE)
# Wider than RFC 5321 section 4.1.1.1: underscores and lone labels are what real clients say. Still nothing
# that could mean something else in a trace field.
_HELLO: Final = re.compile(r"(?=.{1,255}$)(?:[A-Za-z0-9._-]+|\[[A-Za-z0-9.:_-]+\])")


@final
@dataclass(frozen=True, slots=True)
class Context:
    """All that a parser may know beside its argument."""

    config: Config
    session: Session
    envelope: Envelope | None


Parser: TypeAlias = Callable[[str, Context], Event]


def parse_command(line: bytes, context: Context) -> Event:
    """Read one command line, without its CRLF; a Refusal for what is no command."""
    verb, _, argument = line.partition(b" ")
    verb = verb.upper()  # RFC 5321 section 2.4
    parser = COMMANDS.get(verb)
    if parser is None:
        raise Refusal(UNKNOWN_COMMAND)
    if len(line) + len(b"\r\n") > LINE_SIZES.get(verb, COMMAND_LINE_SIZE):
        raise Refusal(LINE_TOO_LONG)
    try:
        text = argument.decode()
    except UnicodeDecodeError:
        raise Refusal(BAD_OCTETS) from None
    if _NOT_TEXT.search(text):
        raise Refusal(BAD_OCTETS)
    # More than one space behind the verb is tolerated: it cannot mean anything else.
    return parser(text.lstrip(" "), context)


def _bare(event: Event) -> Parser:
    """Make the parser of a verb that takes no argument."""

    def parse(text: str, _context: Context) -> Event:
        if text:
            raise Refusal(NO_ARGUMENT)
        return event

    return parse


def _helo(text: str, _context: Context) -> Event:
    return _parse_hello(text, is_extended=False, offered=())


def _ehlo(text: str, context: Context) -> Event:
    return _parse_hello(text, is_extended=True, offered=offers(context.config))


def _parse_hello(text: str, *, is_extended: bool, offered: tuple[str, ...]) -> Event:
    if not _HELLO.fullmatch(text):
        raise Refusal(BAD_HELLO)
    return Hello(text, is_extended, offered)


def _mail(text: str, context: Context) -> Event:
    # Many clients put a space behind the colon, against RFC 5321 section 3.3; it cannot mean anything else.
    start = _FROM.match(text)
    if start is None:
        raise Refusal(MAIL_SYNTAX)
    try:
        reverse_path, rest = read_reverse_path(text[start.end() :])
    except ValueError as error:
        raise Refusal(bad_sender(str(error))) from None
    known = MAIL_PARAMETERS if context.session.is_extended else NO_MAIL_PARAMETERS
    parameters = parse_parameters(rest, known, MailParameters())
    # RFC 6531 section 3.5
    if not parameters.smtputf8 and not text.isascii():
        raise Refusal(NON_ASCII_SENDER)
    return Mail(reverse_path, parameters)


def _rcpt(text: str, context: Context) -> Event:
    start = _TO.match(text)
    if start is None:
        raise Refusal(RCPT_SYNTAX)
    try:
        forward_path, rest = read_forward_path(text[start.end() :], context.config.hostname)
    except ValueError as error:
        raise Refusal(bad_recipient(str(error))) from None
    parse_parameters(rest, RCPT_PARAMETERS, None)
    # RFC 6531 section 3.5
    if not text.isascii() and not (context.envelope and context.envelope.parameters.smtputf8):
        raise Refusal(NON_ASCII_RECIPIENT)
    return Rcpt(forward_path)


def _noop(text: str, _context: Context) -> Event:
    # RFC 5321 section 4.1.1.9: a parameter string should be ignored.
    _require_ascii(text)
    return Noop()


def _help(text: str, _context: Context) -> Event:
    _require_ascii(text)
    return Help(text)


def _vrfy(text: str, context: Context) -> Event:
    return Vrfy(_parse_string(text, context))


def _expn(text: str, context: Context) -> Event:
    return Expn(_parse_string(text, context))


def _parse_string(text: str, context: Context) -> str:
    """Read the argument of VRFY and EXPN, which may be followed by SMTPUTF8 (RFC 6531 section 3.7.4.2)."""
    string, _, last = text.rpartition(" ")
    is_internationalized = context.session.is_extended and string and last.upper() == "SMTPUTF8"
    if is_internationalized:
        return string
    _require_ascii(text)
    if not text:
        raise Refusal(MISSING_ARGUMENT)
    return text


def _require_ascii(text: str) -> None:
    if not text.isascii():
        raise Refusal(NON_ASCII_ARGUMENT)


def _not_implemented(_text: str, _context: Context) -> Event:
    raise Refusal(NOT_IMPLEMENTED)


COMMANDS: Final[Mapping[bytes, Parser]] = {
    b"HELO": _helo,
    b"EHLO": _ehlo,
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _bare(Data()),
    b"RSET": _bare(Rset()),
    b"QUIT": _bare(Quit()),
    b"NOOP": _noop,
    b"HELP": _help,
    b"VRFY": _vrfy,
    b"EXPN": _expn,
    # RFC 5321 section 4.2.4: 502 for a command that is recognized but not implemented.
    b"SEND": _not_implemented,
    b"SOML": _not_implemented,
    b"SAML": _not_implemented,
    b"TURN": _not_implemented,
    b"ETRN": _not_implemented,
    b"STARTTLS": _not_implemented,
    b"AUTH": _not_implemented,
    b"BDAT": _not_implemented,
}
"""Every verb that is known."""
