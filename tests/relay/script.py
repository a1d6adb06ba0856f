"""An exchange led by hand: what it says, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from smtprecv.protocol import (
    Dialect,
    Envelope,
    MailParameters,
    RcptParameters,
    Recipient,
    Reply,
    parse_forward_path,
    parse_reverse_path,
)
from smtprecv.relay import Compute, Exchange, Handover, Handshake, NextHop, ReplyReader, Say, SendMail

T = TypeVar("T")

NOTHING_WANTED = RcptParameters()
ALL = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "SIZE")


def hop(*offers: str, dialect: Dialect = Dialect.SMTP, is_verified: bool = False, **values: str) -> NextHop:
    """Give a next hop with these offers."""
    return NextHop(dialect, {**dict.fromkeys(offers, ""), **values}, is_verified)


def to(
    *addresses: str,
    sender: str = "anna@example.com",
    given: MailParameters = MailParameters(),
    wanted: RcptParameters = NOTHING_WANTED,
    is_ascii: bool = False,
    left: int | None = None,
) -> Handover:
    """Give a handover to these recipients."""
    recipients = tuple(Recipient(parse_forward_path(address), parameters=wanted) for address in addresses)
    return Handover(Envelope(parse_reverse_path(sender), given, recipients), recipients, 1000, is_ascii, left)


def reply(text: str) -> Reply:
    """Read one reply, its lines divided by ``|``."""
    reader = ReplyReader()
    reader.receive("".join(f"{line}\r\n" for line in text.split("|")).encode())
    found = reader.next_reply()
    assert found is not None
    return found


def play(
    exchange: Exchange[T],
    answers: Mapping[str, str | Sequence[str]],
    default: str = "250 ok",
    said: list[str] | None = None,
) -> tuple[list[str], T]:
    """Lead an exchange to its end; give what it asked for, and what it returned.

    ``answers``: for the beginning of a command the reply to it, or the replies to it in turn. What is sent in one
    step stands in one string, its commands divided by ``|``. ``<message>`` is the message, ``<tls>`` the handshake,
    ``<greeting>`` the wait for it. ``said``: a list that has it also where the exchange fails.
    """
    said = [] if said is None else said
    left = {key: [value] if isinstance(value, str) else list(value) for key, value in answers.items()}

    def answer(command: str) -> Reply:
        key = next((key for key in left if command.startswith(key)), None)
        if key is None:
            return reply(default)
        return reply(left[key].pop(0) if len(left[key]) > 1 else left[key][0])

    commands: list[str] = []
    try:
        step = next(exchange)
        while True:
            match step:
                case Say(octets, due):
                    commands = octets.decode().split("\r\n")[:-1] or ["<greeting>"]
                    assert len(commands) == due
                case Handshake():
                    commands = ["<tls>"]
                case SendMail(_, due):
                    commands = ["<message>"] * due
                case Compute(work):
                    work()
                    step = exchange.send([])
                    continue
            said.append("|".join(commands))
            step = exchange.send([answer(command) for command in commands])
    except StopIteration as stop:
        return said, stop.value
