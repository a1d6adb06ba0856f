"""The second table: verbs to parsers. What a line says is decided here, whether it may be said is not.

A parser takes the text behind the verb and gives an event, or leaves with a Refusal. It knows the
session only as far as the grammar depends on it: after HELO there are no parameters, and an
address may be non-ASCII only where SMTPUTF8 was declared.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from smtprecv.protocol._context import Context
from smtprecv.protocol._envelope import Dialect, MailParameters, RcptParameters
from smtprecv.protocol._events import (
    Auth,
    AuthResponse,
    Bdat,
    Data,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
    Xclient,
    Xforward,
)
from smtprecv.protocol._extensions import offers
from smtprecv.protocol._grammar import parse_hello, read_forward_path, read_reverse_path
from smtprecv.protocol._parameters import (
    MAIL_PARAMETERS,
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    RCPT_PARAMETERS,
    MailFields,
    RcptFields,
    parse_parameters,
)
from smtprecv.protocol._refusal import (
    ATTRIBUTE_SYNTAX,
    AUTH_SYNTAX,
    BAD_BASE64,
    BAD_HELLO,
    BAD_OCTETS,
    BDAT_SYNTAX,
    LINE_TOO_LONG,
    MAIL_SYNTAX,
    MISSING_ARGUMENT,
    NO_ARGUMENT,
    NON_ASCII_ARGUMENT,
    NON_ASCII_RECIPIENT,
    NON_ASCII_SENDER,
    NOT_IMPLEMENTED,
    NOT_SMTP,
    RCPT_SYNTAX,
    UNKNOWN_COMMAND,
    Refusal,
    bad_recipient,
    bad_sender,
)
from smtprecv.protocol._xtext import Xtext

COMMAND_LINE_SIZE: Final = 512
"""Octets of a command line, CRLF included (RFC 5321 section 4.5.3.1.4)."""
MAX_LINE_SIZE: Final = 12288
"""Octets of the longest line that any command may have, CRLF included (RFC 4954 section 4)."""
_MAIL_LINE_SIZE: Final = COMMAND_LINE_SIZE + sum(
    (
        26,  # SIZE: RFC 1870 section 3
        17,  # BODY: RFC 6152 section 2; BINARYMIME is within it and 16 more: RFC 3030 section 3
        10,  # SMTPUTF8: RFC 6531 section 3.1
        len(" RET=HDRS"),  # RFC 3461 section 5.4
        len(" ENVID=") + 100,  # RFC 3461 section 5.4
        17,  # BY: RFC 2852 section 3
        15,  # MT-PRIORITY: RFC 6710 section 3
        11,  # REQUIRETLS: RFC 8689 section 2
        500,  # AUTH: RFC 4954 section 3
    )
)
LINE_SIZES: Final[Mapping[bytes, int]] = {
    b"MAIL": _MAIL_LINE_SIZE,
    b"RCPT": COMMAND_LINE_SIZE + 530,  # RFC 3461 section 5.4
    b"AUTH": MAX_LINE_SIZE,
    b"XCLIENT": 2 * COMMAND_LINE_SIZE,
    b"XFORWARD": 2 * COMMAND_LINE_SIZE,
}
"""The verbs whose lines may be longer."""

_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 3030 section 2; 20 digits, as RFC 1870 section 6.1 has them
_BDAT: Final = re.compile(r"(?P<size>[0-9]{1,20})(?P<last> +LAST)?", re.IGNORECASE)
# RFC 4422 section 3.1: sasl-mech
_AUTH: Final = re.compile(r"(?P<mechanism>[A-Za-z0-9_-]{1,20})(?: +(?P<response>[^ ]+))?")
# RFC 4648 section 4, which every Python reads in its own way
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_ATTRIBUTE: Final = re.compile(r"(?P<name>[A-Za-z]{1,20})=(?P<value>[^=]+)")
_NOT_KNOWN: Final = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})


_NO_MAIL: Final = MailParameters()
_NO_RCPT: Final = RcptParameters()

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
    if not text.isprintable() and _NOT_TEXT.search(text):
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


def _helo(text: str, context: Context) -> Event:
    return _parse_hello(text, context, Dialect.SMTP, is_extended=False)


def _ehlo(text: str, context: Context) -> Event:
    return _parse_hello(text, context, Dialect.SMTP, is_extended=True)


def _lhlo(text: str, context: Context) -> Event:
    return _parse_hello(text, context, Dialect.LMTP, is_extended=True)


def _parse_hello(text: str, context: Context, dialect: Dialect, *, is_extended: bool) -> Event:
    # RFC 2033 section 4.1: HELO and EHLO are not recognized in LMTP, nor is LHLO in SMTP.
    if context.config.dialect is not dialect:
        raise Refusal(UNKNOWN_COMMAND)
    try:
        parse_hello(text)
    except ValueError:
        raise Refusal(BAD_HELLO) from None
    return Hello(text, is_extended, offers(context.config, context.session) if is_extended else ())


def _auth(text: str, _context: Context) -> Event:
    match = _AUTH.fullmatch(text)
    if match is None:
        raise Refusal(AUTH_SYNTAX)
    response = match["response"]
    # RFC 4954 section 4: = is a response of no octets, where nothing at all is no response.
    initial_response = b"" if response == "=" else None if response is None else _decoded(response.encode())
    return Auth(match["mechanism"].upper(), initial_response)


def parse_response(line: bytes) -> AuthResponse:
    """Read a line that answers a challenge (RFC 4954 section 4); a Refusal for what is no base64."""
    return AuthResponse(None if line == b"*" else _decoded(line))


def _decoded(text: bytes) -> bytes:
    if not _BASE64.fullmatch(text):
        raise Refusal(BAD_BASE64)
    return binascii.a2b_base64(text)


def _xclient(text: str, context: Context) -> Event:
    return Xclient(_parse_attributes(text, context))


def _xforward(text: str, context: Context) -> Event:
    return Xforward(_parse_attributes(text, context))


def _parse_attributes(text: str, context: Context) -> tuple[tuple[str, str | None], ...]:
    if not context.config.xclient:
        raise Refusal(UNKNOWN_COMMAND)
    attributes = tuple(_parse_attribute(word) for word in text.split(" ") if word)
    if not attributes or len({name for name, _ in attributes}) < len(attributes):
        raise Refusal(ATTRIBUTE_SYNTAX)
    return attributes


def _parse_attribute(word: str) -> tuple[str, str | None]:
    match = _ATTRIBUTE.fullmatch(word)
    if match is None:
        raise Refusal(ATTRIBUTE_SYNTAX)
    if match["value"].upper() in _NOT_KNOWN:
        return match["name"].upper(), None
    try:
        return match["name"].upper(), str(Xtext.read(match["value"], is_utf8=True))
    except ValueError:
        raise Refusal(ATTRIBUTE_SYNTAX) from None


def _mail(text: str, context: Context) -> Event:
    # Many clients put a space behind the colon, against RFC 5321 section 3.3; it cannot mean anything else.
    if text[:5].upper() != "FROM:":
        raise Refusal(MAIL_SYNTAX)
    try:
        reverse_path, rest = read_reverse_path(text[5:].lstrip(" "))
    except ValueError as error:
        raise Refusal(bad_sender(str(error))) from None
    known = MAIL_PARAMETERS if context.session.is_extended else NO_MAIL_PARAMETERS
    parameters = MailParameters(**parse_parameters(rest, known, MailFields())) if rest else _NO_MAIL
    # RFC 6531 section 3.5
    if not parameters.smtputf8 and not text.isascii():
        raise Refusal(NON_ASCII_SENDER)
    return Mail(reverse_path, parameters)


def _rcpt(text: str, context: Context) -> Event:
    if text[:3].upper() != "TO:":
        raise Refusal(RCPT_SYNTAX)
    try:
        forward_path, rest = read_forward_path(text[3:].lstrip(" "), context.config.hostname)
    except ValueError as error:
        raise Refusal(bad_recipient(str(error))) from None
    known = RCPT_PARAMETERS if context.session.is_extended else NO_RCPT_PARAMETERS
    parameters = RcptParameters(**parse_parameters(rest, known, RcptFields())) if rest else _NO_RCPT
    # RFC 6531 section 3.5
    if not text.isascii() and not (context.transaction and context.transaction.is_internationalized):
        raise Refusal(NON_ASCII_RECIPIENT)
    return Rcpt(forward_path, parameters)


def _bdat(text: str, _context: Context) -> Event:
    match = _BDAT.fullmatch(text)
    if match is None:
        raise Refusal(BDAT_SYNTAX)
    return Bdat(int(match["size"]), match["last"] is not None)


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


def _not_smtp(_text: str, _context: Context) -> Event:
    raise Refusal(NOT_SMTP)


_FOREIGN_VERBS: Final = (
    *(b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH", b"PRI"),
    *(b"HOST:", b"USER-AGENT:", b"CONTENT-LENGTH:", b"CONTENT-TYPE:"),
)
"""How somebody speaks who was sent here to speak HTTP: whatever follows would be taken for commands."""

COMMANDS: Final[Mapping[bytes, Parser]] = {
    b"HELO": _helo,
    b"EHLO": _ehlo,
    b"LHLO": _lhlo,
    b"STARTTLS": _bare(StartTls()),
    b"AUTH": _auth,
    b"XCLIENT": _xclient,
    b"XFORWARD": _xforward,
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _bare(Data()),
    b"BDAT": _bdat,
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
    **dict.fromkeys(_FOREIGN_VERBS, _not_smtp),
}
"""Every verb that is known."""
