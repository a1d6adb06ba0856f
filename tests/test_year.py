"""A year of a destination that is often away, in simulated time: each attempt comes when the schedule says."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from itertools import pairwise

import pytest
from tools import draw_year
from tools.draw_year import EPOCH, Try, Year

from smtprecv.message import QueueId
from smtprecv.retry import Backoff
from smtprecv.spool import Status

pytestmark = pytest.mark.slow

LONGEST_PAUSE, LONGEST_LINE = 900.0, 300.0


@pytest.fixture(scope="module")
def year() -> Year:
    """Give the year that the plot shows."""
    return draw_year.simulate()


def by_message(year: Year) -> dict[QueueId, list[Try]]:
    """Give the attempts of each message, in order."""
    found: defaultdict[QueueId, list[Try]] = defaultdict(list)
    for each in year.tries:
        found[each.queue_id].append(each)
    return found


def test_everything_comes_to_an_end(year: Year) -> None:
    """Each message was delivered once, or given up when it was five days old; both happened, and often."""
    tries = by_message(year)
    statuses = {queue_id: entry.standings[0].status for queue_id, (_, entry) in year.ended.items()}
    assert set(statuses.values()) == {Status.DELIVERED, Status.FAILED}
    assert (len(statuses) > 1000, list(statuses.values()).count(Status.FAILED) > 10) == (True, True)
    assert set(tries) == set(statuses)
    for queue_id, status in statuses.items():
        delivered = [each.is_delivered for each in tries[queue_id]]
        assert delivered == [False] * (len(delivered) - 1) + [status is Status.DELIVERED]
        if status is Status.FAILED:
            end, entry = year.ended[queue_id]
            assert end - (entry.received - EPOCH).total_seconds() == pytest.approx(5 * 86_400, abs=2)


def test_attempts_match_the_schedule(year: Year) -> None:
    """No attempt is early. One that is late had to wait for another one, or for a pause behind it, and no longer."""
    ended = sorted(each.ended for each in year.tries if not each.is_delivered)
    late = total = 0
    for queue_id, tries in by_message(year).items():
        received = year.ended[queue_id][1].received
        for before, after in pairwise(tries):
            assert after.number == before.number + 1
            due = Backoff().next_attempt(queue_id, before.number, received, EPOCH + dt.timedelta(seconds=before.ended))
            assert due is not None
            wait = after.began - (due - EPOCH).total_seconds()
            assert wait > -0.01
            total += 1
            if wait > 0.01:
                late += 1
                failures = [time for time in ended if time < after.began]
                assert after.began - failures[-1] <= LONGEST_PAUSE + LONGEST_LINE
                assert any(after.began - wait - LONGEST_PAUSE <= time <= after.began for time in failures)
    assert 0 < late < total


def test_a_destination_that_is_away_is_not_hammered(year: Year) -> None:
    """While it is away, it is never asked more than five times in the first pause, and then once in each pause."""
    failures = [each for each in sorted(year.tries, key=lambda each: each.began) if not each.is_delivered]
    for index in range(len(failures) - 20):
        first, last = failures[index], failures[index + 20]
        assert last.began - first.began > 600


def test_the_plot_is_fresh(year: Year) -> None:
    """docs/retries.svg is what tools/draw_year.py draws."""
    assert draw_year.PLOT.read_text() == draw_year.plot(year)
