"""Several deliveries as one, and a delivery that is found by its name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.deliveries.test_maildir import BOB, EVE, attempt, recipient

from smtprecv.deliveries import Maildir, Route, Router, load_delivery
from smtprecv.delivery import Attempt, Delivery, DeliveryCheck
from smtprecv.errors import ConfigError
from smtprecv.message import Redirect
from smtprecv.note import JsonNote
from smtprecv.protocol import Recipient, Reply, parse_forward_path
from smtprecv.spool import Entry

OK, LATER, NEVER = Reply(250, "ok"), Reply(451, "later"), Reply(550, "never")


@dataclass
class Count:
    """A note."""

    tries: int


COUNT = JsonNote(Count)


@dataclass
class Fixed:
    """A delivery that gives this outcome for each recipient, or raises it, and keeps whom it was given."""

    outcome: Reply | Redirect | Exception = OK
    seen: list[list[str]] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)
    surplus: int = 0

    async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
        self.seen.append([str(to) for to in attempt.recipients])
        count = attempt.load(COUNT) or Count(0)
        self.tries.append(count.tries)
        attempt.save(COUNT, Count(count.tries + 1))
        await trio.sleep(1)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return [self.outcome] * (len(attempt.recipients) + self.surplus)

    async def is_delivered(self, entry: Entry, to: Recipient) -> bool:
        return str(to).startswith("bob")


class Plain:
    """A delivery that cannot tell what it has done."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        return [OK] * len(attempt.recipients)


ADDRESSES = ["bob@example.com", "Eve@EXAMPLE.com", "bob@sub.example.com", "a@xn--bcher-kva.example", "x@[192.0.2.1]"]


def at(address: str) -> Recipient:
    """Give a recipient."""
    return Recipient(parse_forward_path(address))


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (["example.com"], ["bob@example.com", "Eve@EXAMPLE.com"]),
        ([".example.com"], ["bob@sub.example.com"]),
        (["eve@example.COM"], ["Eve@EXAMPLE.com"]),
        (["b\u00fccher.example"], ["a@xn--bcher-kva.example"]),
        (["[192.0.2.1]"], ["x@[192.0.2.1]"]),
        (["eve@example.com", ".example.com"], ["Eve@EXAMPLE.com", "bob@sub.example.com"]),
        ([lambda _, to: "x" in str(to).partition("@")[0]], ["x@[192.0.2.1]"]),
        ([], ADDRESSES),
    ],
)
def test_route(to: Sequence[str | Callable[[Entry, Recipient], bool]], expected: Sequence[str]) -> None:
    """A route is for a domain, the domains below one, an address, or whom a function says; case does not matter."""
    route = Route(Plain(), *to)
    assert [address for address in ADDRESSES if route.is_for(attempt().entry, at(address))] == list(expected)


@pytest.mark.parametrize("to", ["", ".", "a b", "@example.com", "x@", "exa_mple..com"])
def test_wrong_route(to: str) -> None:
    """What no recipient could be is a ConfigError."""
    with pytest.raises(ConfigError, match="is no domain"):
        Route(Plain(), to)


def test_no_route_at_all() -> None:
    """A router without a route is a mistake."""
    with pytest.raises(ConfigError, match="a router needs a route"):
        Router()


async def test_outcomes_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """Each recipient has the outcome of his route, redirects too, in his own place; the routes deliver at one time."""
    redirect = Redirect.to("carl@example.com")
    one, two, rest = Fixed(), Fixed(redirect), Fixed(NEVER)
    router = Router(Route(one, "bob@example.com"), Route(two, ".example.org"), Route(rest))
    work = attempt(recipients=(at("x@a.example.org"), BOB, EVE, at("y@b.example.org")))
    started = trio.current_time()
    assert await router.deliver(work) == [redirect, OK, NEVER, redirect]
    assert trio.current_time() - started == 1
    assert (one.seen, two.seen, rest.seen) == (
        [["bob@example.com"]],
        [["x@a.example.org", "y@b.example.org"]],
        [["eve@example.com"]],
    )


async def test_no_route(autojump_clock: trio.testing.MockClock) -> None:
    """Who has no route waits, and nobody is asked for him."""
    one = Fixed()
    replies = await Router(Route(one, "bob@example.com")).deliver(attempt(recipients=(EVE, BOB)))
    assert [str(reply) for reply in replies] == ["451 4.4.4 no route leads there", "250 ok"]
    [reply] = await Router(Route(one, "x@example.com")).deliver(attempt())
    assert (reply, len(one.seen)) == (replies[0], 1)


@pytest.mark.parametrize("broken", [Fixed(OSError("disk")), Fixed(surplus=1), Fixed(Reply(354, "go on"))])
async def test_one_fails_alone(
    broken: Fixed, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A delivery that raises, or answers nonsense, is 451 for its own recipients; alone it is as without a router."""
    router = Router(Route(broken, "bob@example.com"), Route(Fixed()))
    with caplog.at_level(logging.ERROR):
        replies = await router.deliver(attempt(recipients=(EVE, BOB)))
    assert [str(reply) for reply in replies] == ["250 ok", "451 4.3.0 local error in delivery"]
    assert "the delivery of a route raised" in caplog.text
    with pytest.raises((OSError, ValueError)):
        await router.deliver(attempt())


async def test_only_the_pending(autojump_clock: trio.testing.MockClock) -> None:
    """Who was served before is not offered again."""
    one = Fixed()
    work = attempt(recipients=(BOB, EVE))
    entry = work.entry.after([OK, LATER], work.entry.received)
    assert await Router(Route(one)).deliver(replace(work, entry=entry)) == [OK]
    assert one.seen == [["eve@example.com"]]


async def test_notes(autojump_clock: trio.testing.MockClock) -> None:
    """Each delivery has a note for itself, and that of a route which is not in the attempt stays."""
    one, two = Fixed(LATER), Fixed(OSError("x"))
    router = Router(Route(one, "bob@example.com"), Route(two))
    both = attempt(recipients=(BOB, EVE))
    for recipients in ((BOB, EVE), (BOB,), (BOB, EVE)):
        await router.deliver(replace(attempt(recipients=recipients), notebook=both.notebook))
    assert (one.tries, two.tries) == ([0, 1, 2], [0, 1])


async def test_is_delivered() -> None:
    """The delivery of the route is asked, if it can tell."""
    router = Router(Route(Fixed(), "example.com"), Route(Plain(), "example.org"))
    assert isinstance(router, Delivery)
    assert isinstance(router, DeliveryCheck)
    entry = attempt().entry
    asked = [await router.is_delivered(entry, to) for to in (BOB, EVE, at("bob@example.org"), at("bob@example.net"))]
    assert asked == [True, False, False, False]


async def test_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """Cancellation reaches all deliveries."""
    with trio.move_on_after(0.5) as scope:
        await Router(Route(Fixed(), "bob@example.com"), Route(Fixed())).deliver(attempt(recipients=(BOB, EVE)))
    assert scope.cancelled_caught


@dataclass
class Slow:
    """A delivery that takes long, in a nursery of its own, and fails when that is cancelled if it is told to."""

    fails: bool = False

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                if self.fails:
                    raise OSError


@pytest.mark.parametrize(
    ("fails", "text"), [(False, "451 4.3.2 the attempt was broken off"), (True, "451 4.3.0 local error in delivery")]
)
async def test_cancelled_behind_an_answer(text: str, autojump_clock: trio.testing.MockClock, *, fails: bool) -> None:
    """What one route has answered is kept when the others are cancelled: nobody is served twice for them."""
    router = Router(Route(Fixed(), "bob@example.com"), Route(Slow(fails)))
    replies: Sequence[object] = ()
    with trio.move_on_after(5):
        replies = await router.deliver(attempt(recipients=(EVE, BOB)))
    assert [str(reply) for reply in replies] == [text, "250 ok"]


# ---------------------------------------------------------------- by name

MODULE = """
from smtprecv import Reply
class Rows:
    def __init__(self, table="t"): self.table = table
    async def deliver(self, attempt): return [Reply(250, self.table)] * len(attempt.recipients)
class Needs(Rows):
    def __init__(self, table): pass
class Space: rows = Rows("inner")
def make(): return Rows("made")
def wrong(): return 7
ready, number = Rows("ready"), 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the name of a module that can be imported for as long as the test runs."""
    (tmp_path / "their_mail.py").write_text(MODULE)
    (tmp_path / "their_fault.py").write_text("1 / 0")
    (tmp_path / "their_typo.py").write_text("def")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_mail", raising=False)
    return "their_mail"


@pytest.mark.parametrize(
    ("name", "text"), [("Rows", "t"), ("make", "made"), ("ready", "ready"), ("Space.rows", "inner")]
)
async def test_load(name: str, text: str, module: str) -> None:
    """A name stands for an object, or for the class or function that makes one."""
    [reply] = await load_delivery(f"{module}:{name}").deliver(attempt())
    assert reply == Reply(250, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("their_mail", "'their_mail': write MODULE:NAME"),
        ("their_mail:", "'their_mail:': write MODULE:NAME"),
        (":make", "':make': write MODULE:NAME"),
        ("their mail:make", "'their mail:make': write MODULE:NAME"),
        ("no_such_mail:make", "ModuleNotFoundError: No module named 'no_such_mail'"),
        ("their_mail:none", "AttributeError: module 'their_mail' has no attribute 'none'"),
        ("their_mail:number", "is no delivery: int has no method deliver"),
        ("their_mail:wrong", "is no delivery: int has no method deliver"),
        ("their_mail:Needs", "TypeError: "),
        ("their_fault:make", "ZeroDivisionError: division by zero"),
        ("their_typo:make", "SyntaxError: "),
    ],
)
def test_load_nothing(text: str, expected: str, module: str) -> None:
    """What is wrong is said in one line."""
    with pytest.raises(ConfigError) as caught:
        load_delivery(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_router_of_real_ones(tmp_path: Path) -> None:
    """Two Maildirs, by domain."""
    router = Router(Route(Maildir(tmp_path / "a"), "example.com"), Route(Maildir(tmp_path / "b")))
    replies = await router.deliver(attempt(recipients=(BOB, at("x@example.net"), recipient("eve"))))
    assert [reply.code for reply in replies if isinstance(reply, Reply)] == [250] * 3
    assert [len(list((tmp_path / name / "new").iterdir())) for name in "ab"] == [2, 1]
    assert await router.is_delivered(attempt().entry, BOB)
