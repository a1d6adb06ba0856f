"""Grouped placing: the files that wait at one moment are written, synced and shown together.

The theory. A hop to a thread costs the same whatever is done there, and so does an fsync of a folder. A job that finds
nobody gathering, and room for another group, leads: it takes everything that waits, places it in one hop, and wakes
the others; meanwhile the next groups gather, and the first job of each leads it. No task lives in the background.

Its one rule: an outcome is told only behind the fsync of its folder, and a file that fails fails alone. Cancellation
withdraws a job until its group begins; from then on it is waited for, so that nothing appears behind a cancelled
attempt's back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, islice
from typing import Final, final

import trio

from smtprecv.deliveries._mailfile import MailFile, place_together
from smtprecv.spool import RunInThread

GROUP_SIZE: Final = 64
"""Files in one group, all of which are open at the same time."""
GROUPS: Final = 2
"""Groups that are placed at the same time: one is written while another is synced; of more, each is smaller."""

_CALM_TURNS: Final = 2
"""Turns of the loop without another job, after which a group begins."""


@final
class _Job:
    """Files that are placed in one group, and what became of each: until it is done, it has failed."""

    def __init__(self, files: Sequence[MailFile], task: trio.lowlevel.Task) -> None:
        self.files = files
        self.task = task
        self.has_begun = False
        self.outcomes: Sequence[OSError | None] = [OSError("it was not placed")] * len(files)


@final
class Placing:
    """Places files, those of one job together with those of the jobs that wait beside it."""

    def __init__(self, run_in_thread: RunInThread) -> None:
        """Begin with nothing that waits."""
        self._run_in_thread = run_in_thread
        self._waiting: list[_Job] = []
        self._is_gathering = False
        self._groups = 0

    # Control-C in the middle would leave a job whose leader wakes a task that has gone on.
    @trio.lowlevel.enable_ki_protection
    async def place(self, files: Sequence[MailFile]) -> Sequence[OSError | None]:
        """Place at most GROUP_SIZE files; give for each what kept it away, None for one whose name is on disk.

        Nothing of a file that failed is left under ``tmp``. A file that was withdrawn is the caller's to discard.
        """
        job = _Job(files, trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waiting.append(job)
        if self._is_gathering or self._groups == GROUPS:
            await trio.lowlevel.wait_task_rescheduled(partial(self._withdraw, job))
        if not job.has_begun:
            await self._lead(job)
        return job.outcomes

    def _withdraw(self, job: _Job, _raise_cancel: object) -> trio.lowlevel.Abort:
        if job.has_begun:
            return trio.lowlevel.Abort.FAILED
        self._waiting.remove(job)
        return trio.lowlevel.Abort.SUCCEEDED

    async def _lead(self, own: _Job) -> None:
        """Gather a group, place it, and wake its other members."""
        group = await self._gathered(own)
        try:
            with trio.CancelScope(shield=True):
                files = [file for job in group for file in job.files]
                outcomes = iter(await self._run_in_thread(partial(place_together, files)))
                for job in group:
                    job.outcomes = list(islice(outcomes, len(job.files)))
        finally:
            for job in group:
                if job is not own:
                    trio.lowlevel.reschedule(job.task)
            self._groups -= 1
            self._call_leader()

    async def _gathered(self, own: _Job) -> Sequence[_Job]:
        """Begin the jobs that wait and fit into one group, in their order: the leader's own is the first."""
        self._is_gathering = True
        group: Sequence[_Job] = ()
        try:
            # What is about to be ready joins: the larger the group, the less each pays.
            calm = 0
            while calm < _CALM_TURNS and len(self._waiting) < GROUP_SIZE:
                so_far = len(self._waiting)
                await trio.lowlevel.checkpoint()
                calm = calm + 1 if len(self._waiting) == so_far else 0
            count = bisect_right(list(accumulate(len(job.files) for job in self._waiting)), GROUP_SIZE)
            group = self._waiting[:count]
            self._groups += 1
        finally:
            self._is_gathering = False
            del self._waiting[: len(group)]
            for job in group:
                job.has_begun = True
            if not own.has_begun:  # a cancellation, or Control-C
                self._waiting.remove(own)
            self._call_leader()
        return group

    def _call_leader(self) -> None:
        """Let the first that waits gather the next group, if there may be one."""
        if self._waiting and not self._is_gathering and self._groups < GROUPS:
            self._is_gathering = True
            trio.lowlevel.reschedule(self._waiting[0].task)
