"""Simulated crashes: nothing that was promised is lost, and the simulation would find out if it were.

RFC 5321 section 6.1. The long run is `python -m fuzz.simulate 20000`.
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
from fuzz import simulate as command
from tests.simulation.faults import FAULTS
from tests.simulation.invariants import violations
from tests.simulation.life import Process
from tests.simulation.plan import Ending, Mail, drawn
from tests.simulation.sights import Crashed, Odd, Promised, Recorded, Refused, Served, Sight, Told
from tests.simulation.simulation import shrunken, simulate

from smtprecv.message import QueueId

SEEDS = 240
BATCH = 40
PATIENCE = 200
"""Seeds within which a planted fault is caught."""

NAME = QueueId("q1")
MAILS = {
    name: Mail(name, recipients, 50, has_sender=True, ending=Ending.WHOLE)
    for name, recipients in (("good", ("ok@example.net",)), ("ill", ("bad@example.net",)))
}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, SEEDS, BATCH))
def test_no_seed_goes_wrong(first: int) -> None:
    """What was answered 250 is served, reported or seen to have failed, once, whatever a power cut leaves."""
    wrong = {seed: found for seed in range(first, first + BATCH) if (found := simulate(drawn(seed)).violations)}
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str) -> None:
    """Each kind of defect that would lose or repeat mail goes wrong within a few seeds."""
    with FAULTS[fault]():
        caught = next((seed for seed in range(1, PATIENCE + 1) if simulate(drawn(seed)).violations), None)
    assert caught is not None


@pytest.mark.slow
def test_a_seed_is_the_same_each_time() -> None:
    """All chance in a simulation is of its seed: what goes wrong can be looked at again."""
    for seed in (3, 7, 11):
        assert simulate(drawn(seed)).history == simulate(drawn(seed)).history != []


@pytest.mark.slow
def test_a_failure_is_made_smaller() -> None:
    """What has nothing to do with a failure is left out: here, all but one message."""
    with FAULTS["claim_not_released"]():
        small = shrunken(drawn(2))
        assert simulate(small).violations
    [life] = small.lives
    [sending] = life.sendings
    [mail] = sending.mails
    assert (len(mail.recipients), mail.size) == (1, 50)


def test_what_the_program_raises_is_a_violation() -> None:
    """A process that cannot even start is no good one."""
    with patch.object(Process, "live", side_effect=ZeroDivisionError("no life")):
        [told] = simulate(drawn(1)).violations
    assert told.splitlines()[-1] == "ZeroDivisionError: no life"


@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Many seeds are counted; one is told of, and one that goes wrong is told how to run it again."""
    assert command.run_many(1, 3, 1) == 0
    assert "3 seeds, 0 with violations" in capsys.readouterr().out
    assert command.run_one(1) == 0
    assert "seed 1: nothing is wrong" in capsys.readouterr().out


PROMISED, CRASHED, RECORDED = Promised("good"), Crashed(), Recorded(NAME)
SERVED = Served(NAME, "good", "ok@example.net")
TOLD = Told(QueueId("q2"), "ill", ("bad@example.net",))


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([PROMISED, SERVED, RECORDED], None),
        ([PROMISED, SERVED, CRASHED, SERVED, RECORDED], None),
        ([PROMISED, SERVED, CRASHED, RECORDED, SERVED], None),
        ([Promised("ill"), TOLD], None),
        ([SERVED], None),
        ([PROMISED], "lost: good for ok@example.net"),
        ([PROMISED, SERVED, SERVED], "served twice: ('good', 'ok@example.net')"),
        ([PROMISED, SERVED, RECORDED, CRASHED, SERVED], "served twice: ('good', 'ok@example.net')"),
        ([Refused("good", "451"), SERVED], "served, though refused: ('good', 'ok@example.net')"),
        ([Promised("ill")], "never told: ill for bad@example.net"),
        ([Promised("ill"), TOLD, replace(TOLD, queue_id=NAME)], "told twice: ('ill', 'bad@example.net')"),
        ([Odd("moonlight")], "odd: moonlight"),
    ],
)
def test_the_invariants(history: list[Sight], expected: str | None) -> None:
    """Each of them can be broken, and is broken by nothing else."""
    assert list(violations(history, MAILS, [])) == ([] if expected is None else [expected])
