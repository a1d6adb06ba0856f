"""Crash the program, again and again: `python -m fuzz.simulate 20000`, or one seed with `--seed N`.

Each seed is a simulation (tests/simulation): clients, the real server, spool and queue, crashes, and what a power cut
may leave. A seed that goes wrong is run again by `--seed`, which tells all that was seen, and finds a smaller plan that
goes wrong as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext
from multiprocessing import Pool
from pprint import pformat

from tests.simulation.faults import FAULTS
from tests.simulation.plan import drawn
from tests.simulation.simulation import shrunken, simulate


def say(text: str) -> None:
    """Print, now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(seed: int) -> tuple[int, list[str]]:
    """Run one seed, and give it with what is wrong."""
    return seed, list(simulate(drawn(seed)).violations)


def run_many(first: int, count: int, processes: int) -> int:
    """Run seeds, and give how many went wrong."""
    started, wrong = time.monotonic(), 0
    with Pool(processes) as pool:
        for done, (seed, violations) in enumerate(pool.imap_unordered(run, range(first, first + count), 10), 1):
            if violations:
                wrong += 1
                say(f"seed {seed}: {violations[0]}\n    python -m fuzz.simulate --seed {seed}")
            if done % 1000 == 0 or done == count:
                say(f"{done} seeds, {wrong} with violations, {time.monotonic() - started:.0f} s")
    return wrong


def run_one(seed: int) -> int:
    """Run one seed, and tell of it; give 1 if it went wrong."""
    plan = drawn(seed)
    outcome = simulate(plan)
    for sight in outcome.history:
        say(f"  {sight}")
    if not outcome.violations:
        say(f"seed {seed}: nothing is wrong")
        return 0
    small = shrunken(plan)
    for violation in outcome.violations:
        say(f"seed {seed}: {violation}")
    say(f"\nsmaller, and wrong as well:\n{pformat(small, width=120)}")
    for violation in simulate(small).violations:
        say(violation)
    return 1


def main() -> int:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="run this one, tell of it, and make it smaller if it goes wrong")
    parser.add_argument("--fault", choices=FAULTS, help="plant a fault (with --seed)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many (default: one for each core)")
    arguments = parser.parse_args()
    if arguments.seed is None:
        return min(1, run_many(arguments.first, arguments.seeds, arguments.processes))
    with FAULTS[arguments.fault]() if arguments.fault else nullcontext():
        return run_one(arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
