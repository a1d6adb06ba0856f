"""``smtprecv serve``: receive mail, and run the queue, until told to stop."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, final

import trio

from smtprecv.cli._arguments import Options
from smtprecv.cli._receiver import prepare_server, refuse_contradictions, refuse_open_sockets, roles
from smtprecv.cli._stdio import standard_stream
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError
from smtprecv.queue import Bounces, DestinationLimits, run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.server import Limits, Listener, Role, Server, address_of, listen, raise_file_limit
from smtprecv.spool import Spool, open_spool

_log: Final = logging.getLogger("smtprecv.serve")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT, of which the first drains and a second one cancels; or to the end that was set.

    SIGHUP ends nothing, but where the log goes to a terminal: there it says that the terminal is gone. An end
    is set by ``--messages`` and ``--stdio``: behind it what is due is tried once. Status 0 after all of these.
    ConfigError for arguments that do not go together; SpoolError for a queue that cannot be used;
    OSError for an address that cannot be listened on.
    """
    refuse_contradictions(options)
    queue = _queue(options)
    limits = _limits(options)
    make_server = prepare_server(options, limits)
    stream = standard_stream() if options.stdio else None
    with _signals() as ends:
        async with _listening(options) as listening:
            refuse_open_sockets(options, [listener for each in listening for listener in each.listeners], stream)
            async with open_spool(options.queue) as spool:
                server = make_server(spool)
                is_stopped = trio.Event()
                async with trio.open_nursery() as nursery:
                    scope = nursery.cancel_scope
                    nursery.start_soon(_stop_on_signals, ends, server, options.grace, scope, is_stopped)
                    if queue is not None and stream is None:
                        nursery.start_soon(queue.run, spool)
                    await (_receive(server, listening) if stream is None else server.talk(stream))
                    scope.cancel()
                if queue is not None and not is_stopped.is_set():
                    await _run_once(ends, spool, queue)
    return 0


def _limits(options: Options) -> Limits:
    connections = raise_file_limit(options.max_connections)
    if connections < options.max_connections:
        _log.warning("--max-connections is %d: the limit of open files allows no more", connections)
    return Limits(connections, options.max_connections_per_client)


@final
@dataclass(frozen=True, slots=True)
class Ends:
    """The signals that ask for the end, among those that come."""

    signals: AsyncIterator[int]
    hangup_ends: bool

    async def next(self) -> str:
        """Wait for the next one, and give its name."""
        while True:
            number = await anext(self.signals)
            if number != signal.SIGHUP or self.hangup_ends:
                return signal.Signals(number).name
            _log.info("SIGHUP: nothing to do, the certificate and the users are read again when they change")


@contextmanager
def _signals() -> Generator[Ends, None, None]:
    """Receive the signals of the command; behind a block that ended well they are ignored, as it is ending."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            # Asked now: a terminal that is gone is none.
            yield Ends(signals, hangup_ends=sys.stderr.isatty())
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise


async def _receive(server: Server, listening: Sequence[Listening]) -> None:
    """Receive on all listeners, each in its role, until the server has drained."""
    async with trio.open_nursery() as nursery:
        for each in listening:
            addresses = [address_of(listener) for listener in each.listeners]
            await nursery.start(server.serve, each.listeners, each.role)
            for address in addresses:
                _log.info("listening on %s%s", address, each.remark)


@final
@dataclass(frozen=True, slots=True)
class Queue:
    """How the queue is run."""

    delivery: Delivery
    retry: Backoff
    bounces: Bounces | None
    destinations: DestinationLimits

    async def run(self, spool: Spool) -> None:
        """Run it until it is cancelled."""
        await run_queue(spool, self.delivery, self.retry, bounces=self.bounces, destinations=self.destinations)

    async def run_once(self, spool: Spool) -> None:
        """Make one pass."""
        await run_once(spool, self.delivery, self.retry, bounces=self.bounces, destinations=self.destinations)


async def _run_once(ends: Ends, spool: Spool, queue: Queue) -> None:
    """Try once what is due, unless a signal stops it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, ends, nursery.cancel_scope)
        await queue.run_once(spool)
        nursery.cancel_scope.cancel()


async def _cancel_on_signal(ends: Ends, scope: trio.CancelScope) -> None:
    await ends.next()
    scope.cancel()


async def _stop_on_signals(
    ends: Ends,
    server: Server,
    grace: dt.timedelta,
    scope: trio.CancelScope,
    is_stopped: trio.Event,
) -> None:
    name = await ends.next()
    _log.info("%s: no new mail, at most %g s for what has begun", name, grace.total_seconds())
    server.drain(grace.total_seconds())
    is_stopped.set()
    _log.info("%s again: stopping at once", await ends.next())
    scope.cancel()


@final
@dataclass(frozen=True, slots=True)
class Listening:
    """Some listeners, their role, and what the log says of it."""

    listeners: Sequence[Listener]
    role: Role
    remark: str


@asynccontextmanager
async def _listening(options: Options) -> AsyncGenerator[list[Listening], None]:
    """Open the listeners of all addresses, and close them at the end."""
    opened: list[Listener] = []
    try:
        found: list[Listening] = []
        for addresses, role, remark in roles(options):
            listeners: list[Listener] = []
            for address in addresses:
                listeners += (new := await _opened(address))
                opened += new
            if listeners:
                found.append(Listening(listeners, role, remark))
        yield found
    finally:
        with trio.CancelScope(shield=True):
            for listener in opened:
                await listener.aclose()


async def _opened(address: str) -> list[Listener]:
    try:
        return await listen(address)
    except OSError as error:
        text = f"cannot listen on {address}: {error.strerror or error}"
        raise OSError(error.errno, text) from error


def _queue(options: Options) -> Queue | None:
    retry, destinations = options.backoff, options.destinations
    if not options.runqueue:
        return None
    delivery = options.delivery
    if delivery is None:
        msg = "--deliver is needed to run the queue; --no-runqueue only receives"
        raise ConfigError(msg)
    return Queue(delivery, retry, options.bounces, destinations)
