"""The workshop: `nox` runs what a change must pass, fast checks first; `nox -l` shows all there is.

The tests run against the package as it is installed, never against the source folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False  # the Pythons that are there, and not fewer because one is not
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests", "e2e", "coverage", "crash", "fuzz"]

PYTHONS = ["3.11", "3.12", "3.13"]
FUZZ_SECONDS = 45
SIMULATIONS = 20_000
NO_TESTS = 5  # pytest's exit status
SIDE_BY_SIDE = ("--numprocesses=auto", "--dist=worksteal")
"""For pytest: a process of tests for each CPU."""


def dependencies(*groups: str) -> tuple[str, ...]:
    """Give what these dependency groups of pyproject.toml ask for."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups)


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Run pytest under coverage; the data is left for the session `coverage`. Arguments may leave no test to run."""
    session.run(
        "coverage",
        "run",
        "-m",
        "pytest",
        *arguments,
        *session.posargs,
        env={"COVERAGE_FILE": str(Path.cwd() / f".coverage.{session.name}")},
        success_codes=[0, NO_TESTS] if session.posargs else [0],
    )


def run_all(session: nox.Session, *commands: Sequence[str]) -> None:
    """Run commands at the same time, one for each CPU; the session fails when all have ended, if one of them has."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for ended in [pool.submit(session.run, *command) for command in commands]:
            ended.result()


@nox.session
def lint(session: nox.Session) -> None:
    """Check with every rule of ruff, and the format."""
    session.install(*dependencies("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check with mypy and pyright: the tree, the programs of the documents, and that the public API is all typed."""
    session.install(".", *dependencies("types"))
    run_all(session, ["mypy"], ["pyright"])
    elsewhere = Path(session.create_tmp())
    programs = printed_programs()
    for name, program in programs.items():
        (elsewhere / name).write_text(program)
    (elsewhere / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": [*programs]}))
    with session.chdir(elsewhere):
        run_all(
            session,
            ["mypy", "--strict", "--config-file=", *programs],
            ["pyright", "--project", "."],
            ["pyright", "--verifytypes", "smtprecv", "--ignoreexternal"],
        )


def printed_programs() -> dict[str, str]:
    """Give the Python programs that the documents print, each with a file name."""
    return {
        f"{Path(document).stem.lower()}_{number}.py": program
        for document in (
            "README.md",
            "docs/coming-from-net-smtp-receive.md",
            "docs/operating.md",
            "docs/deliveries.md",
            "docs/exactlyonce.md",
            "docs/policies.md",
            "docs/sansio.md",
        )
        for number, program in enumerate(
            re.findall(r"^```python\n(.*?)^```$", Path(document).read_text(), re.DOTALL | re.MULTILINE)
        )
    }


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests within one process, on the first Python under coverage; arguments go to pytest."""
    session.install(".", *dependencies("test"))
    if session.python == PYTHONS[0]:
        run_tests(session, *SIDE_BY_SIDE, "-m", "not e2e and not crash")
    else:
        session.run("pytest", *SIDE_BY_SIDE, "-m", "not e2e and not crash", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Run the tests that start the command and other people's clients."""
    session.install(".", *dependencies("test"))
    run_tests(session, *SIDE_BY_SIDE, "-m", "e2e and not crash and not alone")
    run_tests(session, "-m", "e2e and alone")


@nox.session
def coverage(session: nox.Session) -> None:
    """Say which lines and branches no test of the sessions before this one has run."""
    session.install("coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def crash(session: nox.Session) -> None:
    """Kill real processes under load, and count."""
    session.install(".", *dependencies("test"))
    session.run("pytest", *SIDE_BY_SIDE, "-m", "crash", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz each target for so many seconds (the first argument); new inputs go to a scratch folder."""
    session.install(".", *dependencies("fuzz"))
    seconds = session.posargs[0] if session.posargs else str(FUZZ_SECONDS)
    commands: list[list[str]] = []
    for target in sorted(Path("fuzz").glob("fuzz_*.py")):
        corpus = Path("fuzz", "corpus", target.stem.removeprefix("fuzz_"))
        scratch = Path(session.create_tmp(), target.stem)
        scratch.mkdir(exist_ok=True)
        limits = [f"-max_total_time={seconds}", "-timeout=10", f"-artifact_prefix={scratch}-"]
        commands.append(["python", str(target), *limits, str(scratch), str(corpus)])
    run_all(session, *commands)


@nox.session
def simulate(session: nox.Session) -> None:
    """Simulate crashes, so many (the first argument); what else is given goes to fuzz/simulate.py."""
    session.install(".", *dependencies("test"))
    session.run("python", "-m", "fuzz.simulate", *(session.posargs or [str(SIMULATIONS)]))


@nox.session
def properties(session: nox.Session) -> None:
    """Run the tests with thousands of examples for each property."""
    session.install(".", *dependencies("test"))
    session.run("pytest", "-m", "not e2e and not crash", *session.posargs, env={"HYPOTHESIS_PROFILE": "large"})


@nox.session
def docs(session: nox.Session) -> None:
    """Write anew what is generated, and test what the documents say."""
    session.install(".", *dependencies("test"))
    for tool in sorted(Path("tools").glob("*.py")):
        session.run("python", str(tool))
    session.run(
        "pytest", "tests/test_docs.py", "tests/test_readme.py", "tests/test_rfc_index.py", "tests/test_sansio_page.py"
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the command beside other receivers; arguments go to bench/__main__.py."""
    session.install(".", *dependencies("bench"))
    session.run("python", "-m", "bench", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Put the command under a mixed load for minutes, and say what grows; arguments go to bench/soak.py."""
    session.install(".", *dependencies("bench"))
    session.run("python", "-m", "bench.soak", *session.posargs)


@nox.session
def deep(session: nox.Session) -> None:
    """Measure a queue of a million messages beside one of a thousand; arguments go to bench/deep_queue.py."""
    session.install(".", *dependencies("bench"))
    session.run("python", "-m", "bench.deep_queue", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the source archive, the wheel from it, and run the tests against that wheel."""
    session.install("build", *dependencies("test"))
    dist = Path(session.create_tmp(), "dist")
    session.run("python", "-m", "build", "--outdir", str(dist))
    wheels = sorted(dist.glob("*.whl"), key=os.path.getmtime)
    session.install("--force-reinstall", str(wheels[-1]))
    session.run("smtprecv", "--help", silent=True)
    session.run("pytest", "-m", "not e2e and not crash", *session.posargs)
