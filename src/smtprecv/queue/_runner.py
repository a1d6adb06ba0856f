"""The runner: the only loop that delivers.

It claims what is due, hands it to the delivery, and records what became of it; when to try
again is the retry policy's to say, and the store is the spool's. Its one rule: a delivery that
was made is recorded, however often that takes, and is never made again because the record failed.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Final, NoReturn, final

import trio

from smtprecv.delivery import Delivery
from smtprecv.errors import CommitFailed, ConfigError, SpoolError
from smtprecv.message import Commit, Now, QueueId, utc_now
from smtprecv.protocol import EnhancedStatus, Reply, Severity
from smtprecv.queue._attempts import Attempts
from smtprecv.queue._bounces import Bounces, Reporter, Result
from smtprecv.queue._circuit import DestinationLimits
from smtprecv.queue._destinations import Destinations, RunSlot
from smtprecv.queue._report import Report, log_outcome
from smtprecv.queue._schedule import Schedule
from smtprecv.retry import Backoff, RetryPolicy
from smtprecv.spool import Claim, Recorder, Spool, TransactionalSpool

_log: Final = logging.getLogger("smtprecv.queue")

_LONGEST_SLEEP: Final = 30.0
"""Seconds after which mail accepted by another process, or a step of the wall clock, is seen at the latest."""
_RECOVERY_INTERVAL: Final = 60.0
"""Seconds between two looks for owners that have died."""
_SPOOL_TROUBLE_WAIT: Final = 5.0
"""Seconds before the queue is read again after it could not be."""
_RECORD_WAITS: Final = (0.1, 0.5, 2.0, 10.0)
"""Seconds before an outcome is recorded again that could not be; the last one repeats."""
_LAST_RECORD_TIMEOUT: Final = 10.0
"""Seconds for which a cancelled run still tries to record what was delivered."""
_FRESH_ROOM: Final = 100
"""Messages claimed at birth that may wait for a free slot, their small bodies in memory."""
_LOCAL_ERROR: Final = Reply(451, "local error in delivery", EnhancedStatus(4, 3, 0))
"""What a recipient is answered when the delivery raised."""
_LIMITS: Final = DestinationLimits()


async def run_queue(
    spool: Spool,
    delivery: Delivery,
    retry: RetryPolicy | None = None,
    *,
    now: Now = utc_now,
    concurrency: int = 50,
    local_error: Reply = _LOCAL_ERROR,
    bounces: Bounces | None = None,
    destinations: DestinationLimits = _LIMITS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Deliver what is accepted and what is due, for as long as it is not cancelled.

    ``concurrency``: attempts at one time, at least 2; one place is kept for fresh mail, which
    therefore never waits behind retries alone. ``local_error``: the 4yz that counts for each recipient
    when the delivery raised (ConfigError for another). ``retry``: a ``Backoff()`` if not given; where it raises,
    the message waits as ``Backoff()`` has it. ``bounces``: tells senders what became of their mail; without it who has
    failed stays in the queue, and reports that are there wait. ``destinations``: what holds for each destination that
    the delivery names; mail for one that has no room or is not well waits, and no other mail with it. Several
    processes may run the queue of one spool. Cancellation reaches the deliveries under way,
    whose attempts are repeated later; what a delivery had answered already is recorded.
    """
    reporter = Reporter(bounces, delivery, retry or Backoff())
    slots = _slots(concurrency)
    schedule, places = Schedule(reporter, now), Destinations(destinations, concurrency)
    attempts = Attempts(reporter, schedule, places, now, _transient(local_error))
    run = _Run(spool, reporter, attempts, now, slots)
    async with reporter.deliveries(), spool.fresh(_FRESH_ROOM) as fresh, trio.open_nursery() as nursery:
        nursery.start_soon(run.deliver_due, nursery)
        nursery.start_soon(run.recover)
        task_status.started()
        while True:
            if run.slots.value:
                run.slots.acquire_nowait()
            else:
                await run.slots.acquire()
            # Nothing is awaited between a claim and the start of its task, so cancellation can't lose it.
            nursery.start_soon(run.attempt, await fresh.receive())


async def run_once(
    spool: Spool,
    delivery: Delivery,
    retry: RetryPolicy | None = None,
    *,
    ids: Sequence[QueueId] | None = None,
    now: Now = utc_now,
    concurrency: int = 50,
    local_error: Reply = _LOCAL_ERROR,
    bounces: Bounces | None = None,
    destinations: DestinationLimits = _LIMITS,
) -> Report:
    """Make one pass: try every message that is due now, or those named by ``ids``, due or not, and report.

    Naming a message is the retry by hand: its failed recipients are tried again as well. Those that a named message
    is redirected to are due at once, for the run of the queue or the next pass. Reports made in the pass are tried at
    its end. SpoolError if the queue cannot be read. Cancellation, ``bounces`` and ``destinations`` are as for
    ``run_queue``, but that everything has its turn in the pass, unless its destination has a pause.
    """
    reporter = Reporter(bounces, delivery, retry or Backoff())
    slots = _slots(concurrency)
    schedule, places = Schedule(reporter, now), Destinations(destinations, concurrency, is_pass=True)
    attempts = Attempts(reporter, schedule, places, now, _transient(local_error))
    run = _Run(spool, reporter, attempts, now, slots)
    run.reports = []
    async with reporter.deliveries():
        if ids is not None:
            await run.attempt_named(ids)
        else:
            started = now()
            # What was redirected is still due; what was deferred is not.
            while await run.attempt_due(started):
                pass
        await run.attempt_each(run.reports)
    return run.report


def _committing(spool: Spool, commits: Sequence[Commit]) -> Recorder:
    """Give what stores a result and does ``commits`` with it; CommitFailed if this spool can't."""
    if isinstance(spool, TransactionalSpool):
        return spool.committing(commits)
    raise CommitFailed(dict.fromkeys(commits, RuntimeError("a Commit needs a spool on SQLite")))


def _slots(concurrency: int) -> trio.Semaphore:
    if concurrency < 2:
        msg = "concurrency must be at least 2: one place is kept for fresh mail"
        raise ConfigError(msg)
    return trio.Semaphore(concurrency)


def _transient(reply: Reply) -> Reply:
    if reply.severity is not Severity.TRANSIENT:
        msg = f"local_error is {reply}: a fault of ours must be 4yz"
        raise ConfigError(msg)
    return reply


@final
@dataclass(slots=True)
class _Run:
    """One run of the queue: its parts, its free slots, and what it has done."""

    spool: Spool
    reporter: Reporter
    attempts: Attempts
    now: Now
    slots: trio.Semaphore
    reports: list[QueueId] | None = None
    """The reports that a single pass has made; those of a run that goes on come to it as fresh mail."""
    report: Report = field(default=Report())
    nap: trio.CancelScope = field(default_factory=trio.CancelScope)
    """The sleep until something is due; a message that is deferred meanwhile may shorten it."""

    async def deliver_due(self, nursery: trio.Nursery) -> NoReturn:
        """Start an attempt for whatever is due, now and whenever something becomes due."""
        while True:
            try:
                if not await self.start_due(nursery, self.now()):
                    await self._sleep_until_due()
            except SpoolError as error:
                _log.warning("cannot read the queue: %s", error)
                await trio.sleep(_SPOOL_TROUBLE_WAIT)

    async def recover(self) -> NoReturn:
        """Take over what owners that have died had claimed."""
        while True:
            await trio.sleep(_RECOVERY_INTERVAL)
            try:
                await self.spool.recover()
            except SpoolError as error:
                _log.warning("cannot look for owners that died: %s", error)

    async def start_due(self, nursery: trio.Nursery, now: dt.datetime) -> bool:
        """Start attempts for messages due at ``now``, as many as slots are free; False if none is due."""
        free = await self._acquire_free()
        claims: Sequence[Claim] = ()
        try:
            claims = await self.spool.claim(now, free)
        finally:
            for _ in range(free - len(claims)):
                self.slots.release()
        for claim in claims:
            nursery.start_soon(self.attempt, claim)
        return bool(claims)

    async def attempt_due(self, now: dt.datetime) -> bool:
        """Attempt everything that is due at ``now``; False if that is nothing."""
        is_due = False
        async with trio.open_nursery() as nursery:
            while await self.start_due(nursery, now):
                is_due = True
        return is_due

    async def attempt_named(self, queue_ids: Sequence[QueueId]) -> None:
        """Attempt these messages, and note those that are busy or missing."""
        left = await self.attempt_each(queue_ids)
        found = {entry.queue_id for entry in await self.spool.find(left)} if left else set[QueueId]()
        busy = tuple(queue_id for queue_id in left if queue_id in found)
        missing = tuple(queue_id for queue_id in left if queue_id not in found)
        self.report = replace(self.report, busy=busy, missing=missing)

    async def attempt_each(self, queue_ids: Sequence[QueueId]) -> list[QueueId]:
        """Attempt these messages, and give those that could not be claimed."""
        left: list[QueueId] = []
        async with trio.open_nursery() as nursery:
            for queue_id in dict.fromkeys(queue_ids):
                await self.slots.acquire()
                claims = await self.spool.claim_ids([queue_id])
                if claims:
                    nursery.start_soon(self.attempt, claims[0])
                else:
                    self.slots.release()
                    left.append(queue_id)
        return left

    async def attempt(self, claim: Claim) -> None:
        """Deliver once, record the outcome, and free the slot that the starter took."""
        result, slot = Result(claim.entry), RunSlot(self.slots)
        try:
            result = await self.attempts.result(claim, slot)
        finally:
            try:
                # The claim ends whatever happened; after a cancellation the entry is as it was.
                result = await self._record(claim, result)
            finally:
                slot.release()
        entry = result.entry
        self._expect(entry.due)
        self.report = self.report.plus(claim.entry, entry)
        log_outcome(claim.entry, entry)

    async def _record(self, claim: Claim, result: Result) -> Result:
        """Store the outcome and end the claim, however often that takes; after a cancellation only for so long.

        Give what was stored: it is another outcome where what was to be done with it could not be done.
        """
        try:
            return await self._record_at_last(claim, result)
        except trio.Cancelled:
            with trio.move_on_after(_LAST_RECORD_TIMEOUT, shield=True):
                await self._record_at_last(claim, result)
            raise

    async def _record_at_last(self, claim: Claim, result: Result) -> Result:
        """Store the outcome; while the spool can't, wait and try again. Cancellation ends the waiting alone."""
        is_whole = True
        for wait in chain(_RECORD_WAITS, repeat(_RECORD_WAITS[-1])):
            try:
                with trio.CancelScope(shield=True):
                    result, report = await self._stored(claim, result, is_whole=is_whole)
                    if report is not None and self.reports is not None:
                        self.reports.append(report)
            except SpoolError as error:
                _log.warning("%s: cannot record the outcome, trying again: %s", result.entry.queue_id, error)
                # Where there is no room for all of a message, there is for its header.
                is_whole = False
                await trio.sleep(wait)
            else:
                break
        return result

    async def _stored(self, claim: Claim, result: Result, *, is_whole: bool) -> tuple[Result, QueueId | None]:
        """Store the outcome once; whose Commit raises is to be tried again, and the rest is stored without it."""
        while (asked := result.asked) is not None and asked.commits:
            try:
                recorder = _committing(self.spool, asked.commits)
                return result, await self.reporter.store(recorder, claim, result, self.now(), is_whole=is_whole)
            except CommitFailed as failed:
                result = self.attempts.without(claim, asked, failed.failures)
        return result, await self.reporter.store(self.spool, claim, result, self.now(), is_whole=is_whole)

    async def _acquire_free(self) -> int:
        """Wait for a free slot, take all that are free, and give their number."""
        await self.slots.acquire()
        free = 1
        while self.slots.value > 0:
            self.slots.acquire_nowait()
            free += 1
        return free

    async def _sleep_until_due(self) -> None:
        """Return when something may be due: at its time, at an arrival, or when it is time for a look."""
        self.nap = trio.CancelScope(deadline=trio.current_time() + _LONGEST_SLEEP)
        self._expect(await self.spool.next_due())
        with self.nap:
            await self.spool.wait_for_mail()

    def _expect(self, due: dt.datetime | None) -> None:
        """Be awake when ``due`` comes."""
        if due is not None:
            wait = (due - self.now()).total_seconds()
            self.nap.deadline = min(self.nap.deadline, trio.current_time() + wait)
