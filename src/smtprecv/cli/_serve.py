"""``smtprecv serve``: receive mail, and run the queue, until told to stop."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Final, NoReturn

import trio

from smtprecv.cli._arguments import Options
from smtprecv.cli._stdio import standard_stream
from smtprecv.delivery import Delivery
from smtprecv.errors import ConfigError
from smtprecv.policies import AcceptDomains
from smtprecv.protocol import Config
from smtprecv.queue import run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.server import (
    INHERITED,
    Ident,
    Limits,
    Listener,
    ReverseDns,
    Server,
    SpoolIntake,
    address_of,
    listen,
    parse_address,
    raise_file_limit,
)
from smtprecv.spool import Spool, open_spool

_log: Final = logging.getLogger("smtprecv.serve")

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


async def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT, of which the first drains and a second one cancels; or to the end that was set.

    An end is set by ``--messages`` and ``--stdio``: behind it what is due is tried once. Status 0 after all of these.
    ConfigError for arguments that do not go together; SpoolError for a queue that cannot be used;
    OSError for an address that cannot be listened on.
    """
    _refuse_open_relay(options)
    delivery, retry = _delivery(options), options.backoff
    limits = _limits(options)
    stream = standard_stream() if options.stdio else None
    with _signals() as signals:
        async with _listening(options.listen) as listeners:
            _refuse_open_sockets(options, listeners, stream)
            async with open_spool(options.queue) as spool:
                server = _server(options, spool, limits)
                is_stopped = trio.Event()
                async with trio.open_nursery() as nursery:
                    scope = nursery.cancel_scope
                    nursery.start_soon(_stop_on_signals, signals, server, options.grace, scope, is_stopped)
                    if delivery is not None and stream is None:
                        nursery.start_soon(_run_queue, spool, delivery, retry)
                    await (_receive(server, listeners) if stream is None else server.talk(stream))
                    scope.cancel()
                if delivery is not None and not is_stopped.is_set():
                    await _run_once(signals, spool, delivery, retry)
    return 0


def _limits(options: Options) -> Limits:
    connections = raise_file_limit(options.max_connections)
    if connections < options.max_connections:
        _log.warning("--max-connections is %d: the limit of open files allows no more", connections)
    return Limits(connections, options.max_connections_per_client)


def _server(options: Options, spool: Spool, limits: Limits) -> Server:
    return Server(
        SpoolIntake(spool),
        config=Config(options.hostname, options.max_message_size, options.max_recipients, options.max_hops),
        policy=AcceptDomains(options.accept_domain, options.hostname) if options.accept_domain else None,
        limits=limits,
        host_lookup=ReverseDns() if options.reverse_dns else None,
        ident_lookup=Ident() if options.ident else None,
        max_messages=options.messages,
    )


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


async def _receive(server: Server, listeners: Sequence[Listener]) -> None:
    addresses = [address_of(listener) for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        for address in addresses:
            _log.info("listening on %s", address)


async def _run_queue(spool: Spool, delivery: Delivery, retry: Backoff) -> None:
    await run_queue(spool, delivery, retry)


async def _run_once(signals: AsyncIterator[int], spool: Spool, delivery: Delivery, retry: Backoff) -> None:
    """Try once what is due, unless a signal stops it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
        await run_once(spool, delivery, retry)
        nursery.cancel_scope.cancel()


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _stop_on_signals(
    signals: AsyncIterator[int],
    server: Server,
    grace: dt.timedelta,
    scope: trio.CancelScope,
    is_stopped: trio.Event,
) -> None:
    async for number in signals:
        name = signal.Signals(number).name
        if is_stopped.is_set():
            _log.info("%s again: stopping at once", name)
            scope.cancel()
        else:
            _log.info("%s: no new mail, at most %g s for what has begun", name, grace.total_seconds())
            server.drain(grace.total_seconds())
            is_stopped.set()


@asynccontextmanager
async def _listening(addresses: Sequence[str]) -> AsyncGenerator[list[Listener], None]:
    """Open the listeners of all addresses, and close them at the end."""
    listeners: list[Listener] = []
    try:
        for address in addresses:
            try:
                listeners += await listen(address)
            except OSError as error:
                text = f"cannot listen on {address}: {error.strerror or error}"
                raise OSError(error.errno, text) from error
        yield listeners
    finally:
        with trio.CancelScope(shield=True):
            for listener in listeners:
                await listener.aclose()


def _delivery(options: Options) -> Delivery | None:
    if not options.runqueue:
        return None
    delivery = options.delivery
    if delivery is None:
        msg = "--deliver is needed to run the queue; --no-runqueue only receives"
        raise ConfigError(msg)
    return delivery


def _refuse_open_relay(options: Options) -> None:
    """Nobody opens a relay or a spam trap by accident."""
    if options.accept_domain or options.accept_any:
        return
    for address in options.listen:
        if not (address.startswith(INHERITED) or _is_loopback(parse_address(address)[0])):
            _refuse(f"--listen {address}")


def _refuse_open_sockets(options: Options, listeners: Sequence[Listener], stream: trio.abc.Stream | None) -> None:
    """Nor does anybody by sockets that were opened by somebody else."""
    if options.accept_domain or options.accept_any:
        return
    sockets = [listener.socket for listener in listeners]
    if isinstance(stream, trio.SocketStream):
        sockets.append(stream.socket)
    for opened in sockets:
        if opened.family != socket.AF_UNIX and not _is_loopback(opened.getsockname()[0]):
            _refuse("the socket that was inherited")


def _refuse(culprit: str) -> NoReturn:
    msg = f"{culprit} is not loopback: say what to take, with --accept-domain DOMAIN or --accept-any"
    raise ConfigError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # A name may come to mean another address; this one may not (RFC 6761 section 6.3).
        return host == "localhost"
