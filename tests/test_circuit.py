"""The circuit breaker and the line before a destination: pure, or nearly so."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from smtprecv.errors import ConfigError
from smtprecv.message import DeliveryAnswer, Later, Redirect
from smtprecv.protocol import EnhancedStatus, Reply
from smtprecv.queue import DestinationLimits
from smtprecv.queue._circuit import Circuit, is_unwell
from smtprecv.queue._destinations import Destination, Destinations, RunSlot

SECOND, MINUTE = dt.timedelta(seconds=1), dt.timedelta(minutes=1)
REFUSED = Reply(451, "connection refused", EnhancedStatus(4, 4, 1))
BUSY = Reply(451, "busy", EnhancedStatus(4, 3, 2))
LIMITS = DestinationLimits(concurrency=2, failures=3)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("--destination-concurrency", lambda: DestinationLimits(concurrency=0)),
        ("--destination-failures", lambda: DestinationLimits(failures=0)),
        (r"\(--destination-pause\) must be longer", lambda: DestinationLimits(first_pause=dt.timedelta())),
        ("--destination-pause-max", lambda: DestinationLimits(first_pause=2 * MINUTE, longest_pause=MINUTE)),
        ("at most a day", lambda: DestinationLimits(longest_pause=dt.timedelta(days=2))),
    ],
)
def test_limits(text: str, make: Callable[[], DestinationLimits]) -> None:
    """Limits that would stop everything are an error that names the option."""
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([REFUSED], True),
        ([Reply(421, "shutting down")], True),
        ([Later(REFUSED, SECOND), REFUSED], True),
        ([REFUSED, Reply(250, "ok")], False),
        ([REFUSED, Redirect.to("a@example.com")], False),
        ([BUSY], False),
        ([Later(BUSY, SECOND)], False),
        ([Reply(451, "later")], False),
        ([Reply(554, "expired", EnhancedStatus(5, 4, 7))], False),
    ],
)
def test_unwell(answers: Sequence[DeliveryAnswer], *, expected: bool) -> None:
    """All answers are 421 or of 4.4.z (RFC 3463 section 3.5): the destination is not well; nothing else says so."""
    assert is_unwell(answers) is expected


def fail(circuit: Circuit, now: float, times: int = 1) -> None:
    """Let attempts pass that fail."""
    for _ in range(times):
        circuit.end(now, is_probe=circuit.begin(), is_well=False)


def test_circuit(caplog: pytest.LogCaptureFixture) -> None:
    """It opens after so many failures in a row, then lets one probe pass; pauses double up to the longest one."""
    circuit = Circuit("mx:25", LIMITS)
    fail(circuit, 0, 2)
    circuit.end(0, is_probe=circuit.begin(), is_well=None)
    assert circuit.is_closed
    now, pauses = 0.0, list[float]()
    with caplog.at_level(logging.INFO, "smtprecv.queue"):
        for _ in range(8):
            fail(circuit, now)
            assert not circuit.lets_pass(now)
            pauses.append(circuit.resumes(now, 1) - now)
            now = circuit.resumes(now, 1)
            assert circuit.lets_pass(now)
        is_probe = circuit.begin()
        assert (is_probe, circuit.lets_pass(now), circuit.resumes(now, 7)) == (True, False, now + 7)
        circuit.end(now, is_probe=is_probe, is_well=True)
    assert (circuit.is_closed, circuit.lets_pass(now), circuit.resumes(now, 7)) == (True, True, now)
    for pause, longest in zip(pauses, [30, 60, 120, 240, 480, 900, 900, 900], strict=True):
        assert longest * 0.9 <= pause <= longest
    assert caplog.messages[0].startswith("mx:25 is not well: 3 failures in a row, a pause of ")
    assert caplog.messages[-1] == "mx:25 answers again"


def test_pauses_can_be_foretold() -> None:
    """The jitter of a pause is a hash of name and number: always the same, and another one for another destination."""

    def pause(name: str) -> float:
        circuit = Circuit(name, LIMITS)
        fail(circuit, 0, 3)
        return circuit.resumes(0, 1)

    assert pause("a:25") == pause("a:25")
    assert pause("a:25") != pause("b:25")


def test_failures_count_in_a_row() -> None:
    """One success between failures, and they are counted anew."""
    circuit = Circuit("mx:25", LIMITS)
    fail(circuit, 0, 2)
    circuit.end(0, is_probe=circuit.begin(), is_well=True)
    fail(circuit, 0, 2)
    assert circuit.is_closed


def test_late_answers() -> None:
    """What was under way when the circuit opened makes no pause longer if it fails, and closes it if it doesn't."""
    circuit = Circuit("mx:25", LIMITS)
    fail(circuit, 0, 3)
    resumes = circuit.resumes(0, 1)
    circuit.end(10, is_probe=False, is_well=False)
    assert circuit.resumes(10, 1) == resumes
    circuit.end(11, is_probe=False, is_well=True)
    assert circuit.is_closed


def test_a_probe_that_tells_nothing() -> None:
    """A probe that ends without an answer leaves room for the next one, at once."""
    circuit = Circuit("mx:25", LIMITS)
    fail(circuit, 0, 3)
    circuit.end(100, is_probe=circuit.begin(), is_well=None)
    assert (circuit.is_closed, circuit.lets_pass(100)) == (False, True)


def test_the_line() -> None:
    """Messages without a slot come back one behind the other, by the measured pace, at least a second later."""
    destination = Destination("mx:25", LIMITS, 2)
    for _ in range(50):
        visit = destination.try_begin(0)
        assert visit is not None
        destination.end(visit, 10)
    turns = [destination.next_turn("m", 0, 100) for _ in range(3)]
    assert turns == pytest.approx([5, 10, 15], abs=0.01)
    assert Destination("b", LIMITS, 2).next_turn("m", 0, 0) == 1


def test_the_pace_of_what_hangs() -> None:
    """An attempt that has not ended yet counts with the time that it has taken so far."""
    destination = Destination("mx:25", LIMITS, 2)
    assert destination.try_begin(0) is not None
    assert destination.next_turn("m", 0, 60) == 30


@pytest.mark.parametrize(("age", "longest"), [(0, 300), (1200, 300), (7200, 1800), (14400, 3600), (10**9, 3600)])
def test_the_end_of_the_line(age: float, longest: float) -> None:
    """Nobody is put off beyond a pause by more than five minutes, or a quarter of his age, or an hour.

    The rest is spread over the second half of that time.
    """
    destination = Destination("mx:25", LIMITS, 2)
    fail(destination.circuit, 0, 3)
    start = destination.circuit.resumes(0, 1)
    count = int(2 * longest)
    turns = [destination.next_turn(f"m{number}", age, 0) for number in range(count + 400)]
    assert turns[:3] == pytest.approx([start + 0.5, start + 1, start + 1.5])
    rest = turns[count:]
    assert (min(rest) >= start + longest / 2, max(turns) <= start + longest, len(set(rest))) == (True, True, 400)


async def hold(destinations: Destinations, name: str, slots: trio.Semaphore, *, until: trio.Event) -> None:
    """Have a slot of a destination until the event."""
    await slots.acquire()
    slot = RunSlot(slots)
    async with destinations.visits([name], slot, patience=60, is_busy=False):
        await until.wait()
    slot.release()


async def test_memory_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever number of names appears, about a thousand are remembered; what is in use, or newer, is not forgotten."""
    destinations, slots, until = Destinations(LIMITS, 20), trio.Semaphore(20), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: hold(destinations, "used", slots, until=until))
        await trio.testing.wait_all_tasks_blocked()
        used = destinations._known["used"]
        for number in range(5000):
            destinations.next_turn([f"d{number}"], "m", 0)
        assert len(destinations._known) == 1000
        assert (destinations._known["used"] is used, "d4999" in destinations._known) == (True, True)
        until.set()


async def test_who_waits_gives_the_slot_of_the_run_to_others(autojump_clock: trio.testing.MockClock) -> None:
    """A wait in memory costs no slot of the run, ends with the patience, and is for few."""
    destinations, slots, until = Destinations(LIMITS, 20), trio.Semaphore(20), trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(lambda: hold(destinations, "mx:25", slots, until=until))
        await trio.testing.wait_all_tasks_blocked()
        destination = destinations._known["mx:25"]
        # Those beyond were turned away, and wait for the event with their slot of the run.
        assert destination.slots.statistics().tasks_waiting == 8
        assert slots.statistics().tasks_waiting == 100 - 2 - 8 - 18
        with trio.move_on_after(1):
            await destination.slots.acquire()
        await trio.sleep(61)
        assert destination.slots.statistics().tasks_waiting == 0
        until.set()
    assert (slots.value, destination.slots.value) == (20, 2)


async def test_never_more_than_half_of_the_run() -> None:
    """However many slots one destination may have, half of the run's are left to the others."""
    assert [Destinations(DestinationLimits(), n)._size for n in (2, 3, 8, 20, 100)] == [1, 1, 4, 10, 10]
