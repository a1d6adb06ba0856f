"""A simulation: the lives of a plan, a crash at the end of each, and what is wrong with what the world has seen.

A crash is a cut through the trace of a life: what happened before it does not depend on it, so that the process need
not be stopped to know what would be left. Between two entries of a trace nothing changes on the disk or in the world:
a cut behind each is a crash at every await, at every statement, and within every transaction.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, final

from tests.simulation.disk import Disk, Link, Sync, Truncate, Unlink, Write
from tests.simulation.invariants import violations
from tests.simulation.life import Process
from tests.simulation.plan import Life, Mail, Plan, elsewhere, smaller
from tests.simulation.recorder import Recorder, Trace
from tests.simulation.sights import Crashed, Odd, Sight

_OPERATIONS: Final = (Link, Unlink, Write, Truncate, Sync)
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - names in it are made unguessable


def scratch() -> str | None:
    """Give a folder whose files need no disk, if there is one: the syncs that count are simulated."""
    return str(_MEMORY) if _MEMORY.is_dir() else None


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What the world has seen, and what is wrong with that: nothing, if all is well."""

    history: Sequence[Sight]
    violations: Sequence[str]


def simulate(plan: Plan) -> Outcome:
    """Run a plan. What the program raises is a violation as well."""
    history = list[Sight]()
    try:
        return Outcome(history, _lived(plan, history))
    except Exception:
        return Outcome(history, [traceback.format_exc()])


def shrunken(plan: Plan) -> Plan:
    """Give the smallest plan to be found that goes wrong, if this one does: some of its crashes may be elsewhere."""
    while True:
        tries = (each for less in smaller(plan) for each in (less, *elsewhere(less)))
        less = next((each for each in tries if simulate(each).violations), None)
        if less is None:
            return plan
        plan = less


def _lived(plan: Plan, history: list[Sight]) -> list[str]:
    mails = {mail.token: mail for life in plan.lives for sending in life.sendings for mail in sending.mails}
    disk = Disk()
    with tempfile.TemporaryDirectory(prefix="simulation-", dir=scratch()) as folder:
        for number, life in enumerate(plan.lives):
            process = _process(Path(folder, str(number)), plan, disk, mails, number)
            process.live(life)
            disk = _crashed(process, disk, life, plan.seed, history)
        process = _process(Path(folder, "last"), plan, disk, mails, len(plan.lives))
        left = process.recover()
        history += [event for event in process.recorder.trace if not isinstance(event, _OPERATIONS)]
        return list(violations(history, mails, left))


def _process(place: Path, plan: Plan, disk: Disk, mails: Mapping[str, Mail], number: int) -> Process:
    place.mkdir()
    disk.make(place)
    return Process(place, Recorder(place, disk), f"{plan.seed} {number}", mails, plan.wal_limit, number)


def _crashed(process: Process, disk: Disk, life: Life, seed: int, history: list[Sight]) -> Disk:
    """Give the disk as the crash of a life leaves it, and remember what was seen before."""
    trace = process.recorder.trace
    end = _cut(trace, life)
    for event in trace[:end]:
        if isinstance(event, _OPERATIONS):
            disk.apply(event)
        else:
            history.append(event)
    history.append(Crashed())
    left = disk.after(life.loss, Random(f"{seed} {life.number} {end}"))
    for event in trace[end:]:
        if isinstance(event, _OPERATIONS):
            disk.apply(event)
    history += [Odd(f"{path} is not what was recorded") for path in disk.differences(process.place)]
    return left


def _cut(trace: Trace, life: Life) -> int:
    """Give how much of a trace is before the crash."""
    sights = [index + life.steps for index, event in enumerate(trace) if not isinstance(event, _OPERATIONS)]
    places = sights if life.near_sights and sights else range(len(trace) + 1)
    return min(places[int(life.crash * len(places))], len(trace))
