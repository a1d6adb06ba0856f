"""``smtprecv serve``: receive mail, and run the queue, until told to stop."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, final

import trio

from smtprecv.cli._arguments import Options
from smtprecv.cli._ends import Ends, ends_for
from smtprecv.cli._listening import Listening, close_listeners, open_listeners
from smtprecv.cli._memory import keep_one_arena
from smtprecv.cli._receiver import prepare_server, refuse_contradictions
from smtprecv.cli._stdio import standard_stream
from smtprecv.cli._worker import Worker
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError
from smtprecv.queue import Bounces, DestinationLimits, run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.server import Limits, Server, raise_file_limit
from smtprecv.spool import Spool, open_spool

_log: Final = logging.getLogger("smtprecv.serve")


async def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT, of which the first drains and a second one cancels; or to the end that was set.

    SIGHUP ends nothing, but where the log goes to a terminal: there it says that the terminal is gone. An end
    is set by ``--messages`` and ``--stdio``: behind it what is due is tried once. A worker serves until its
    supervisor asks for the end, or has died. Status 0 after all of these.
    ConfigError for arguments that do not go together; SpoolError for a queue that cannot be used;
    OSError for an address that cannot be listened on.
    """
    keep_one_arena()
    plan = make_plan(options)
    stream = standard_stream() if options.stdio else None
    with ends_for(options.worker) as ends:
        async with _listening(options, stream) as listening, open_spool(options.queue) as spool:
            server = plan.make_server(spool)
            is_stopped = trio.Event()
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                nursery.start_soon(_stop_on_signals, ends, server, options.grace, scope, is_stopped)
                if plan.queue is not None and stream is None:
                    nursery.start_soon(plan.queue.run, spool)
                if stream is None:
                    await _receive(server, listening, options.worker)
                else:
                    await server.talk(stream)
                scope.cancel()
            if plan.queue is not None and not is_stopped.is_set():
                await _run_once(ends, spool, plan.queue)
    return 0


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What the arguments describe, read and found to go together; nothing is opened yet."""

    queue: Queue | None
    make_server: Callable[[Spool], Server]


def make_plan(options: Options) -> Plan:
    """Check all that can be checked beforehand; ConfigError or OSError for what is wrong."""
    refuse_contradictions(options)
    return Plan(_queue(options), prepare_server(options, _limits(options)))


def _limits(options: Options) -> Limits:
    connections = raise_file_limit(options.max_connections)
    if connections < options.max_connections and options.worker is None:
        _log.warning("--max-connections is %d: the limit of open files allows no more", connections)
    return Limits(connections, options.max_connections_per_client)


@asynccontextmanager
async def _listening(options: Options, stream: trio.abc.Stream | None) -> AsyncGenerator[list[Listening], None]:
    """Open the listeners of all addresses, and close them at the end."""
    listening = await open_listeners(options, stream)
    try:
        yield listening
    finally:
        await close_listeners(listening)


async def _receive(server: Server, listening: Sequence[Listening], worker: Worker | None) -> None:
    """Receive on all listeners, each in its role, until the server has drained."""
    lines = [line for each in listening for line in each.lines]
    async with trio.open_nursery() as nursery:
        for each in listening:
            await nursery.start(server.serve, each.listeners, each.role)
        if worker is not None:
            worker.tell_ready()
            return
        for line in lines:
            _log.info("%s", line)


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


def _queue(options: Options) -> Queue | None:
    retry, destinations, bounces = options.backoff, options.destinations, options.bounces
    if not options.runqueue:
        return None
    delivery = options.delivery
    if delivery is None:
        msg = "--deliver is needed to run the queue; --no-runqueue only receives"
        raise ConfigError(msg)
    return Queue(delivery, retry, bounces, destinations)
