"""Several processes on one spool, of which one after the other is killed under load.

Each message has two recipients: the copy of one goes into a Maildir, which knows its messages again, that of the other
to a program that appends a line to a file, which cannot. Nothing is lost, nothing is in the Maildir twice, and a second
line is there only where a process died between its delivery and the record of it: the line names the process.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from tests.crash.load import Load, arrived
from tests.e2e.served import COMMAND, Served, smtprecv

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROUNDS: Final = int(os.environ.get("CRASH_ROUNDS", "30")) // 2
"""In each of the two tests. A longer run is CRASH_ROUNDS=600: some five minutes for each on an idle machine."""
WINDOW: Final = 20
"""Attempts that a process has under way: so many deliveries it can have made, and not recorded, when it dies."""
FOLDER, PROGRAM = "folder.example.com", "program.example.com"

APPEND: Final = 'cat >/dev/null; echo "$2 $3" >>"$1"'
"""The program: it reads the message to its end, and appends who delivered it and to whom, in one write."""


@dataclass
class Run:
    """A `runqueue`, which may have ended by itself; as a Served is, as far as Fleet needs it."""

    process: subprocess.Popen[bytes]

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait until it has ended, and give its exit status."""
        return self.process.wait(60)


@dataclass
class Fleet:
    """Processes on one spool, each with a place, a kind and in each life another name; leaving kills what runs."""

    folder: Path
    kinds: Sequence[str]
    """For each place `serve`, `receive` (a server that leaves the queue to others) or `runqueue`."""
    places: list[Served | Run] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    killed: dict[str, str] = field(default_factory=dict)
    """What each process that was killed had written to its log, by its name."""

    def __post_init__(self) -> None:
        """Start them all."""
        for place in range(len(self.kinds)):
            self.names.append(f"{place}.0")
            self.places.append(self._started(place, 0))

    @property
    def queue(self) -> Path:
        """The spool's folder."""
        return self.folder / "queue"

    @property
    def ports(self) -> list[int]:
        """Where those that receive do."""
        return [process.port for process in self.places if isinstance(process, Served)]

    def _started(self, place: int, port: int) -> Served | Run:
        """Start a process, and wait until it listens if it does."""
        command = f"command:/bin/sh -c '{APPEND}' append {self.folder / 'lines'} {self.names[place]} {{recipient}}"
        routes = ["--deliver", f"{FOLDER}=maildir:{self.folder / 'Maildir'}", "--deliver", f"{PROGRAM}={command}"]
        match self.kinds[place]:
            case "serve":
                return Served(self.folder, *routes, port=port, deliver=None)
            case "receive":
                return Served(self.folder, "--no-runqueue", port=port, deliver=None)
            case _:
                run = [*COMMAND, "runqueue", "--queue", str(self.queue), "--hostname", "mx.example.com", *routes]
                return Run(subprocess.Popen(run, stdout=subprocess.DEVNULL))

    def replace(self, place: int) -> None:
        """Kill a process, unless it has ended by itself, and start another in its place."""
        process, name = self.places[place], self.names[place]
        if process.is_running:
            process.kill()
            self.killed[name] = process.log if isinstance(process, Served) else ""
        self.names[place] = f"{place}.{int(name.partition('.')[2]) + 1}"
        self.places[place] = self._started(place, process.port if isinstance(process, Served) else 0)

    def tend(self) -> None:
        """Start those anew that have made their pass and ended, and see that no server has."""
        for place, process in enumerate(self.places):
            if not process.is_running:
                assert isinstance(process, Run), process.log
                assert process.wait() == 0
                self.replace(place)

    def end(self) -> None:
        """Wait until the queue is empty, and let everybody end in good order."""
        for process in self.places:
            if isinstance(process, Run):
                assert process.wait() == 0
        servers = [process for process in self.places if isinstance(process, Served)]
        servers[0].await_empty_queue(120)
        for server in servers:
            server.terminate()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End whatever still runs."""
        for process in self.places:
            process.kill()


def appended(lines: Path) -> Mapping[str, Sequence[str]]:
    """Give for each token the names of the processes that have delivered it to the program."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in lines.read_text().splitlines():
        name, token = line.removesuffix(f"@{PROGRAM}").split()
        found[token].append(name)
    return found


def recorded(log: str) -> set[str]:
    """Give the tokens whose delivery to the program a process had recorded: it says so afterwards."""
    return set(re.findall(rf": to=<(\S+)@{PROGRAM}> delivered", log))


def account(load: Load, fleet: Fleet) -> str:
    """Compare promise and delivery: AssertionError for what is lost, or twice without a death; else a report."""
    in_folder = arrived(fleet.folder / "Maildir")
    in_program = appended(fleet.folder / "lines")
    records = {name: recorded(log) for name, log in fleet.killed.items()}
    twice = {token: names for token, names in in_program.items() if len(names) > 1}
    # What has an excuse: who delivered it was killed, and had not said that it is done. One of them needs none.
    excused = {
        token: [name for name in names if token not in records.get(name, {token})][: len(names) - 1]
        for token, names in twice.items()
    }
    beyond = [token for token, names in twice.items() if len(names) - len(excused[token]) > 1]
    per_death = Counter(name for names in excused.values() for name in names)
    report = (
        f"{len(fleet.killed)} killed; attempted {load.attempted}, acknowledged {len(load.acknowledged)}; "
        f"folder: {len(in_folder)} delivered, {len(load.acknowledged - in_folder.keys())} lost, "
        f"{sum(count > 1 for count in in_folder.values())} twice; "
        f"program: {len(in_program)} delivered, {len(load.acknowledged - in_program.keys())} lost, "
        f"{len(twice) - len(beyond)} twice within the window, {len(beyond)} beyond it, "
        f"{max(per_death.values(), default=0)} at most by one death"
    )
    assert load.acknowledged <= in_folder.keys(), report
    assert in_folder.keys() == in_program.keys(), report
    assert max(in_folder.values()) == 1, report
    assert beyond == [], report
    assert max(per_death.values(), default=0) <= WINDOW, report
    return report


@pytest.mark.parametrize(
    "kinds",
    [("serve", "serve"), ("serve", "serve", "receive", "runqueue")],
    ids=["two", "four"],
)
def test_single_ones_are_killed(
    kinds: Sequence[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Of several processes on one spool any may die at any moment; the others, and its next life, lose nothing.

    At the end the queue is empty, `queue verify` finds nothing, and no dead process has left a file.
    """
    chance = random.Random(os.environ.get("CRASH_SEED", "3"))  # a seed that can be given again
    load = Load(clients=6, domains=(FOLDER, PROGRAM), pause=0.02)
    with Fleet(tmp_path, kinds) as fleet:
        load.start(*fleet.ports)
        for _ in range(ROUNDS):
            # Not a wait for anything: the moment of death itself is what varies.
            time.sleep(chance.uniform(0.02, 0.5))
            fleet.replace(chance.randrange(len(kinds)))
            fleet.tend()
        load.stop()
        fleet.end()
        report = account(load, fleet)

    record_property("account", f"{len(kinds)} processes, {ROUNDS} rounds: {report}")
    verified = smtprecv("queue", "verify", "--queue", fleet.queue)
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout
    assert [path.name for folder in ("owners", "bodies") for path in (fleet.queue / folder).iterdir()] == []
