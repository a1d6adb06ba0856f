"""How the tests run: `async def` tests under Trio, Hypothesis by profile, sockets to loopback only.

Trio's own pytest plugin in small: an async test is one `trio.run`, on a MockClock if it asks for one.
What a test records as its `account` (`record_property`) is shown at the end, also when it passes.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("large", max_examples=2500, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test under Trio, on the MockClock among its fixtures if there is one."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    clocks = [value for value in arguments.values() if isinstance(value, trio.testing.MockClock)]
    trio.run(functools.partial(pyfuncitem.obj, **arguments), clock=clocks[0] if clocks else None)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the accounts, whichever process their tests have run in."""
    for report in terminalreporter.getreports("passed"):
        for name, account in report.user_properties:
            if name == "account":
                terminalreporter.write_line(str(account))


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """Give a clock that only the test moves: `mock_clock.jump(seconds)`."""
    return trio.testing.MockClock()


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps to the next deadline whenever every task waits."""
    return trio.testing.MockClock(autojump_threshold=0)


def _loopback_only(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse to talk to another machine; an audit hook, because every library's sockets pass by it."""
    match event, arguments:
        case ("socket.connect" | "socket.sendto", (_, (str(host), *_))) if host != "localhost":
            if not ip_address(host.partition("%")[0]).is_loopback:
                msg = f"a test may talk to loopback only, not to {host}"
                raise PermissionError(msg)
        case _:
            pass


sys.addaudithook(_loopback_only)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it starts in the background ignore Control-C, and every child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
