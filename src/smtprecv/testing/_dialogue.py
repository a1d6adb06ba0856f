"""Dialogues as RFC 5321 appendix D prints them, played against a Connection.

A dialogue is text that somebody who knows only SMTP can read. One rule: how the client's octets are
cut into reads never changes what it hears, so each dialogue is played three times, whole, by line
and by octet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, assert_never

from smtprecv.protocol import (
    Auth,
    AuthResponse,
    Bdat,
    Body,
    Config,
    Connected,
    Connection,
    ConnectionClosed,
    Data,
    Dialect,
    EndOfChunk,
    EndOfMailData,
    EnhancedStatus,
    Event,
    Expn,
    Hello,
    Help,
    Mail,
    MailData,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    RcptParameters,
    Rejected,
    Reply,
    Rset,
    Signal,
    StartTls,
    State,
    Tls,
    Vrfy,
    Xclient,
    Xforward,
    Xtext,
)

_CONFIG: Final = Config("mx.example.com")
_TLS: Final = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
_IDENTITY: Final = "user@example.com"


def play(
    dialogue: str,
    *,
    config: Config = _CONFIG,
    answer: Callable[[Event], Reply | None] = lambda _event: None,
) -> None:
    """Play ``dialogue`` against a Connection; AssertionError where the two differ.

    A line ``C: text`` is what the client sends, with CRLF; ``B: octets`` are sent as they are, with the escapes of
    Python and nothing behind them. A line ``S: text`` is a reply line that the client must hear, in this order. A line
    ``E: text`` is an event, ``E: | text`` a line of a message; when there is one such line, every event must be there.
    Other lines are comments. Behind STARTTLS the client waits if the next line is a reply, and inside
    TLS goes on. ``answer`` gives the replies to events; where it gives None, everything is accepted.
    """
    marked = [(mark, text) for mark, text in _marked(dialogue) if mark in "SE"]
    expected = [f"{mark}: {text}" for mark, text in marked]
    with_events = any(mark == "E" for mark, _ in marked)
    for cut in (_whole, _by_line, _by_octet):
        reads = [read for octets in filter(None, _sent(dialogue)) for read in cut(octets)]
        heard = list(_transcript(reads, config, answer))
        actual = [line for line in heard if with_events or line.startswith("S:")]
        assert actual == expected, "\n".join(["the dialogue differs; it was:", *actual])


def _marked(dialogue: str) -> Iterator[tuple[str, str]]:
    for line in dialogue.splitlines():
        if line[:2] in {"C:", "B:", "S:", "E:"}:
            yield line[0], line[2:].removeprefix(" ")


def _sent(dialogue: str) -> Iterator[bytes]:
    """Give what the client sends, divided where it waits for its STARTTLS to be answered."""
    octets = b""
    for mark, text in _marked(dialogue):
        if mark == "C":
            octets += f"{text}\r\n".encode()
        elif mark == "B":
            octets += text.encode().decode("unicode_escape").encode("latin-1")
        elif octets.upper().endswith(b"STARTTLS\r\n"):
            yield octets
            octets = b""
    yield octets


def _whole(octets: bytes) -> list[bytes]:
    return [octets]


# What is sent together with STARTTLS is read together with it: the machine is to see that.


def _by_line(octets: bytes) -> list[bytes]:
    return re.findall(rb"(?:STARTTLS\r\n)?(?:[^\n]*\n|[^\n]+)", octets)


def _by_octet(octets: bytes) -> list[bytes]:
    return re.findall(rb"STARTTLS\r\n.|.", octets, re.DOTALL)


def _transcript(reads: Iterable[bytes], config: Config, answer: Callable[[Event], Reply | None]) -> Iterator[str]:
    """Give what a session tells and answers, line by line."""
    connection = Connection(config)
    waiting = iter(reads)
    message = b""
    while connection.state is not State.CLOSED:
        event = connection.next_event()
        match event:
            case Signal():
                octets = next(waiting, None)
                if octets is None:
                    return
                connection.receive_data(octets)
            case MailData(octets):
                message += octets
            case Bdat():
                yield _described(event)
            case _:
                if isinstance(event, EndOfMailData) and event.defect is None:
                    yield from _lines(message)
                message = message if isinstance(event, EndOfChunk) else b""
                yield _described(event)
                yield from _replies(connection, event, answer(event) or _default_answer(event, config))
        if connection.state is State.TLS:
            connection = connection.secured(_TLS)


def _replies(connection: Connection, event: Event, reply: Reply) -> Iterator[str]:
    """Answer an event, as often as it is due, and give what the client hears."""
    if reply.is_ok and isinstance(event, Auth | AuthResponse):
        connection.identify(_IDENTITY)
    for _ in range(connection.replies_due):
        yield from (f"S: {line}".rstrip() for line in connection.send(reply).decode().splitlines())


def _lines(message: bytes) -> Iterator[str]:
    """Give the E: lines of a sound message, escaped as in B: lines; how much comes of another is not fixed."""
    lines = message.decode("utf-8", "backslashreplace").split("\r\n")
    for line in lines if lines[-1] else lines[:-1]:
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        yield f"E: | {shown}".rstrip()


def _described(event: Event) -> str:
    return f"E: {type(event).__name__} {_detail(event)}".rstrip()


def _detail(event: Event) -> str:
    match event:
        case Hello(domain):
            return domain
        case Mail(reverse_path, parameters):
            return " ".join([f"<{reverse_path}>", *_mail_parameters(parameters)])
        case Rcpt(forward_path, parameters):
            return " ".join([f"<{forward_path}>", *_rcpt_parameters(parameters)])
        case Auth(mechanism):
            return mechanism
        case Xclient(attributes) | Xforward(attributes):
            return " ".join(f"{name}={value or '[UNAVAILABLE]'}" for name, value in attributes)
        case Bdat(size, is_last):
            return f"{size} LAST" if is_last else str(size)
        case EndOfMailData(size) | EndOfChunk(size):
            return str(size)
        case Help(text) | Vrfy(text) | Expn(text):
            return text
        case Rejected(_, reply):
            return str(reply.code)
        case _:
            return ""


def _mail_parameters(parameters: MailParameters) -> Iterator[str]:
    if parameters.size is not None:
        yield f"SIZE={parameters.size}"
    if parameters.body is not Body.SEVEN_BIT:
        yield f"BODY={parameters.body.value}"
    if parameters.smtputf8:
        yield "SMTPUTF8"
    if parameters.ret is not None:
        yield f"RET={parameters.ret.value}"
    if parameters.envid is not None:
        yield f"ENVID={parameters.envid.encoded}"
    if parameters.deliver_by is not None:
        yield f"BY={parameters.deliver_by}"
    if parameters.priority:
        yield f"MT-PRIORITY={parameters.priority}"
    if parameters.require_tls:
        yield "REQUIRETLS"
    if parameters.auth is not None:
        yield f"AUTH={Xtext.of(parameters.auth or '<>').encoded}"


def _rcpt_parameters(parameters: RcptParameters) -> Iterator[str]:
    if parameters.notify is not None:
        words = sorted(notify.value for notify in parameters.notify)
        yield f"NOTIFY={','.join(words) or 'NEVER'}"
    if parameters.orcpt is not None:
        yield f"ORCPT={parameters.orcpt}"


def _default_answer(event: Event, config: Config) -> Reply:
    """Accept everything."""
    match event:
        case Connected():
            return Reply(220, f"{config.hostname} {'E' * (config.dialect is Dialect.SMTP)}{config.dialect.value}")
        case Hello(_, _, offers):
            return Reply(250, "\n".join([config.hostname, *offers]))
        case StartTls() | Xclient():
            return Reply(220, "Go on")
        case Auth(_, None):
            return Reply(334, "")
        case AuthResponse(None):
            return Reply(501, "Authentication cancelled", EnhancedStatus(5, 7, 0))
        case Auth() | AuthResponse():
            return Reply(235, "Authentication succeeded", EnhancedStatus(2, 7, 0))
        case Mail() | Rset() | Noop() | Xforward():
            return Reply(250, "OK")
        case Rcpt():
            return Reply(250, "Recipient OK", EnhancedStatus(2, 1, 5))
        case Data():
            return Reply(354, "Send the message")
        case EndOfChunk(_, defect):
            return defect or Reply(250, "Chunk received")
        case EndOfMailData(_, defect):
            return defect or Reply(250, "Message accepted", EnhancedStatus(2, 6, 0))
        case Help():
            return Reply(214, "See RFC 5321")
        case Vrfy():
            return Reply(252, "Send some mail, I'll try my best", EnhancedStatus(2, 5, 2))
        case Expn():
            return Reply(502, "No lists here", EnhancedStatus(5, 5, 1))
        case Quit():
            return Reply(221, "Bye")
        case Rejected(_, reply):
            return reply
        case MailData() | Bdat() | ConnectionClosed():
            msg = f"{type(event).__name__} asks for no reply"
            raise AssertionError(msg)
        case _:
            assert_never(event)
