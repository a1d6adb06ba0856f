"""Dialogues as RFC 5321 appendix D prints them, played against a Connection.

A dialogue is text that somebody who knows only SMTP can read. One rule: how the client's octets are
cut into reads never changes what it hears, so each dialogue is played three times, whole, by line
and by octet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, assert_never

from smtprecv.protocol import (
    Body,
    Config,
    Connected,
    Connection,
    ConnectionClosed,
    Data,
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
    Rejected,
    Reply,
    Rset,
    Signal,
    Vrfy,
)

_Question: TypeAlias = (
    Connected | Hello | Mail | Rcpt | Data | EndOfMailData | Rset | Noop | Help | Vrfy | Expn | Quit | Rejected
)
"""The events that ask for a reply."""

_CONFIG: Final = Config("mx.example.com")


def play(
    dialogue: str,
    *,
    config: Config = _CONFIG,
    answer: Callable[[Event], Reply | None] = lambda _event: None,
) -> None:
    """Play ``dialogue`` against a Connection; AssertionError where the two differ.

    A line ``C: text`` is what the client sends, with CRLF. A line ``S: text`` is a reply line that it
    must hear, in this order. A line ``E: text`` is an event, ``E: | text`` a line of a message; when there is
    one such line, every event must be there. Other lines are comments. ``answer`` gives the replies to
    events; where it gives None, everything is accepted.
    """
    sent = "".join(f"{text}\r\n" for mark, text in _marked(dialogue) if mark == "C").encode()
    expected = [f"{mark}: {text}" for mark, text in _marked(dialogue) if mark != "C"]
    with_events = any(line.startswith("E:") for line in expected)
    for cut in (_whole, _by_line, _by_octet):
        heard = list(_transcript(cut(sent), config, answer))
        actual = [line for line in heard if with_events or line.startswith("S:")]
        assert actual == expected, "\n".join(["the dialogue differs; it was:", *actual])


def _marked(dialogue: str) -> Iterator[tuple[str, str]]:
    for line in dialogue.splitlines():
        if line[:2] in {"C:", "S:", "E:"}:
            yield line[0], line[2:].removeprefix(" ")


def _whole(octets: bytes) -> list[bytes]:
    return [octets]


def _by_line(octets: bytes) -> list[bytes]:
    return octets.splitlines(keepends=True)


def _by_octet(octets: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in octets]


def _transcript(reads: Iterable[bytes], config: Config, answer: Callable[[Event], Reply | None]) -> Iterator[str]:
    """Give what a session tells and answers, line by line."""
    connection = Connection(config)
    waiting = iter(reads)
    message = b""
    while True:
        event = connection.next_event()
        if isinstance(event, Signal):
            octets = next(waiting, None)
            if octets is None:
                return
            connection.receive_data(octets)
            continue
        if isinstance(event, ConnectionClosed):
            return
        if isinstance(event, MailData):
            message += event.octets
            continue
        yield from _described(event, message)
        message = b""
        octets = connection.send(answer(event) or _default_answer(event, config))
        yield from (f"S: {line}" for line in octets.decode().splitlines())


def _described(event: Event, message: bytes) -> Iterator[str]:
    """Give the E: lines of an event; those of a sound message first, for how much of another comes is not fixed."""
    if isinstance(event, EndOfMailData) and event.defect is None:
        yield from (f"E: | {line}".rstrip() for line in message.decode().split("\r\n")[:-1])
    yield f"E: {type(event).__name__} {_detail(event)}".rstrip()


def _detail(event: Event) -> str:
    match event:
        case Hello(domain):
            return domain
        case Mail(reverse_path, parameters):
            return " ".join([f"<{reverse_path}>", *_parameters(parameters)])
        case Rcpt(forward_path):
            return f"<{forward_path}>"
        case EndOfMailData(size):
            return str(size)
        case Help(text) | Vrfy(text) | Expn(text):
            return text
        case Rejected(_, reply):
            return str(reply.code)
        case _:
            return ""


def _parameters(parameters: MailParameters) -> Iterator[str]:
    if parameters.size is not None:
        yield f"SIZE={parameters.size}"
    if parameters.body is not Body.SEVEN_BIT:
        yield f"BODY={parameters.body.value}"
    if parameters.smtputf8:
        yield "SMTPUTF8"


def _default_answer(event: _Question, config: Config) -> Reply:
    """Accept everything."""
    match event:
        case Connected():
            return Reply(220, f"{config.hostname} ESMTP")
        case Hello(_, _, offers):
            return Reply(250, "\n".join([config.hostname, *offers]))
        case Mail() | Rset() | Noop():
            return Reply(250, "OK")
        case Rcpt():
            return Reply(250, "Recipient OK", EnhancedStatus(2, 1, 5))
        case Data():
            return Reply(354, "Send the message")
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
        case _:
            assert_never(event)
