"""Who answered: a relay names the next hop for the replies that it gave, and for no other (RFC 3464 section 2.3.5)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio.testing
from tests.deliveries.nexthop import HANG_UP, Scripted, attempt, net

from smtprecv.deliveries import Relay, Route, Router
from smtprecv.delivery import Attempt
from smtprecv.protocol import Body, Dialect, MailParameters, Reply
from smtprecv.relay import TlsMode

BEN, CARL = "ben@example.org", "carl@example.org"


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({}, [BEN, CARL]),
        ({"RCPT TO:<b": "550 no"}, [BEN, CARL]),
        ({"MAIL": "451 later"}, [BEN, CARL]),
        # What we say of a next hop that says nothing, or nothing of use, is our word.
        ({"greeting": "554 go away"}, []),
        ({"MAIL": HANG_UP}, []),
        ({"MAIL": "250 ok|250 ok"}, []),
        ({"RCPT TO:<b": "550 no", "RCPT TO:<c": HANG_UP}, [BEN]),
    ],
)
async def test_named(
    answers: Mapping[str, str],
    named: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The next hop has given a reply, or we have."""
    trying = attempt(BEN, CARL)
    async with net(monkeypatch, Scripted(answers)):
        await Relay("mx.example", tls=TlsMode.NONE).deliver(trying)
    assert {str(path): name for path, name in trying.remotes.items()} == dict.fromkeys(named, "mx.example")


async def test_what_is_never_sent(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    """A message that the next hop can't take is refused by us."""
    trying = attempt(BEN, octets=b"\xff\r\n", given=MailParameters(body=Body.EIGHT_BIT_MIME))
    async with net(monkeypatch, Scripted({"EHLO": "250 mx.example"})):
        (reply,) = await Relay("mx.example", tls=TlsMode.NONE).deliver(trying)
    assert (str(reply.status), trying.remotes) == ("5.6.3", {})


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mx.example.", "mx.example"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        ("localhost", None),
        ("mx example.org", None),
        (Path("/run/lmtp"), None),
    ],
)
async def test_host_names(
    host: str | Path, name: str | None, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Only a full domain name is a name of type dns (RFC 3461 section 6.3)."""
    trying = attempt(BEN)
    async with net(monkeypatch, Scripted()):
        dialect = Dialect.LMTP if isinstance(host, Path) else Dialect.SMTP
        await Relay(host, dialect=dialect, tls=TlsMode.NONE).deliver(trying)
    assert list(trying.remotes.values()) == ([] if name is None else [name])


class Naming:
    """A delivery that says who answered, and then answers or raises."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = replies

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        for recipient in attempt.recipients:
            attempt.answered_by(recipient, "mx.example.org")
        if not self.replies:
            raise OSError
        return self.replies


async def test_router(caplog: pytest.LogCaptureFixture) -> None:
    """A router passes on who answered; of a route that raised nobody did."""
    caplog.set_level(logging.CRITICAL)
    trying = attempt(BEN, CARL)
    router = Router(Route(Naming(Reply(250, "ok")), BEN), Route(Naming(), CARL))
    assert [reply.code for reply in await router.deliver(trying) if isinstance(reply, Reply)] == [250, 451]
    assert {str(path): name for path, name in trying.remotes.items()} == {BEN: "mx.example.org"}
