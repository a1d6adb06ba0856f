"""``smtprecv serve``: receive mail, and run the queue, until told to stop."""

from __future__ import annotations

import datetime as dt
import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Final

import trio

from smtprecv.cli._arguments import Options
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError
from smtprecv.policies import AcceptDomains
from smtprecv.protocol import Config
from smtprecv.queue import run_queue
from smtprecv.retry import Backoff
from smtprecv.server import Limits, Server, SpoolIntake, address_of, listen, parse_address, raise_file_limit
from smtprecv.spool import Spool, open_spool

_log: Final = logging.getLogger("smtprecv.serve")

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


async def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT: the first drains, a second one cancels. Status 0 after both.

    ConfigError for arguments that do not go together; SpoolError for a queue that cannot be used;
    OSError for an address that cannot be listened on.
    """
    _refuse_open_relay(options)
    delivery, retry = _delivery(options), options.backoff
    policy = AcceptDomains(options.accept_domain, options.hostname) if options.accept_domain else None
    config = Config(options.hostname, options.max_message_size, options.max_recipients, options.max_hops)
    connections = raise_file_limit(options.max_connections)
    if connections < options.max_connections:
        _log.warning("--max-connections is %d: the limit of open files allows no more", connections)
    limits = Limits(connections, options.max_connections_per_client)
    with _signals() as signals:
        async with _listening(options.listen) as listeners, open_spool(options.queue) as spool:
            server = Server(SpoolIntake(spool), config=config, policy=policy, limits=limits)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on_signals, signals, server, options.grace, nursery.cancel_scope)
                if delivery is not None:
                    nursery.start_soon(_run_queue, spool, delivery, retry)
                await _receive(server, listeners)
                nursery.cancel_scope.cancel()
    return 0


@contextmanager
def _signals() -> Generator[AsyncIterator[int], None, None]:
    """Receive the signals that end the command; behind a block that ended well they are ignored, as it is ending."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        with trio.open_signal_receiver(*_ENDING) as signals:
            yield signals
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise


async def _receive(server: Server, listeners: Sequence[trio.SocketListener]) -> None:
    addresses = [address_of(listener) for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        for address in addresses:
            _log.info("listening on %s", address)


async def _run_queue(spool: Spool, delivery: Delivery, retry: Backoff) -> None:
    await run_queue(spool, delivery, retry)


async def _stop_on_signals(
    signals: AsyncIterator[int], server: Server, grace: dt.timedelta, scope: trio.CancelScope
) -> None:
    is_draining = False
    async for number in signals:
        name = signal.Signals(number).name
        if is_draining:
            _log.info("%s again: stopping at once", name)
            scope.cancel()
        else:
            _log.info("%s: no new mail, at most %g s for what has begun", name, grace.total_seconds())
            server.drain(grace.total_seconds())
            is_draining = True


@asynccontextmanager
async def _listening(addresses: Sequence[str]) -> AsyncGenerator[list[trio.SocketListener], None]:
    """Open the listeners of all addresses, and close them at the end."""
    listeners: list[trio.SocketListener] = []
    try:
        for address in addresses:
            try:
                listeners += await listen(address)
            except OSError as error:
                text = f"cannot listen on {address}: {error.strerror or error}"
                raise OSError(error.errno, text) from error
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


def _delivery(options: Options) -> Delivery | None:
    if not options.runqueue:
        return None
    if options.deliver is None:
        msg = "--deliver is needed to run the queue; --no-runqueue only receives"
        raise ConfigError(msg)
    return options.deliver(options.hostname)


def _refuse_open_relay(options: Options) -> None:
    """Nobody opens a relay or a spam trap by accident."""
    if options.accept_domain or options.accept_any:
        return
    for address in options.listen:
        if not _is_loopback(parse_address(address)[0]):
            msg = f"--listen {address} is not loopback: say what to take, with --accept-domain DOMAIN or --accept-any"
            raise ConfigError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # A name may come to mean another address; this one may not (RFC 6761 section 6.3).
        return host == "localhost"
