"""The server: accepts connections, holds a dialogue with each, and drains when asked to."""

from __future__ import annotations

import logging
import math
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple, TypeVar, final

import trio

from smtprecv.hostname import own_hostname
from smtprecv.message import Client, SessionId
from smtprecv.policy import Policy
from smtprecv.protocol import Config
from smtprecv.server._accepting import accept_all
from smtprecv.server._dialogue import SHUTDOWN, Dialogue
from smtprecv.server._hooks import Hooks
from smtprecv.server._intake import Intake
from smtprecv.server._limits import Doorkeeper, Limits
from smtprecv.server._networks import Networks, unmapped
from smtprecv.server._peer import ClientLookup, Lookups
from smtprecv.server._proxy import ProxyError, read_header
from smtprecv.server._quota import Quota
from smtprecv.server._role import Role, Service
from smtprecv.server._tls import TlsSource
from smtprecv.server._transport import SocketTransport, close_at_once
from smtprecv.server._unix import UnixListener

_log: Final = logging.getLogger("smtprecv.server")

_REFUSAL_TIMEOUT: Final = 1.0
"""Seconds for the 421 to a connection over a limit."""

_LAST_GRACE: Final = 10.0
"""Seconds for the end of the sessions that brought the ``max_messages``."""


@final
class _Own(NamedTuple):
    """What a role that says nothing is filled with."""

    config: Config
    policy: Policy | None
    intake: Intake


ListenerT = TypeVar("ListenerT", bound=trio.abc.Listener[trio.abc.Stream])


@final
class Server:
    """Receives mail by SMTP and hands it to an intake."""

    def __init__(
        self,
        intake: Intake,
        *,
        config: Config | None = None,
        policy: Policy | None = None,
        limits: Limits | None = None,
        host_lookup: ClientLookup | None = None,
        ident_lookup: ClientLookup | None = None,
        max_messages: int | None = None,
        tls: ssl.SSLContext | TlsSource | None = None,
        proxy_from: Networks | None = None,
        xclient_from: Networks | None = None,
    ) -> None:
        """Prepare a server; nothing happens before ``serve``.

        ``config``: the protocol's settings; by default those of ``Config`` with this machine's host
        name. ``policy``: an object with any of the hooks; by default everything is accepted.
        ``host_lookup`` and ``ident_lookup``: find out ``client.host`` and ``client.ident`` before the banner, both
        at the same time; by default nobody is asked. ``max_messages``: how many are accepted, at least 1; with
        the last one the server drains by itself, but lets those whose mail it has accepted say QUIT within a grace of
        10 seconds; a message more, in whatever session, gets 451.
        """
        self._quota = None if max_messages is None else Quota(max_messages, self._drain_after)
        self._lookups = Lookups(host_lookup, ident_lookup)
        self._tls = tls
        self._proxy_from = proxy_from
        self._xclient_from = xclient_from
        self._limits = limits or Limits()
        self._own = _Own(config or Config(own_hostname()), policy, intake)
        self._fill(Role())  # what does not go together is found out now
        self._doorkeeper = Doorkeeper(self._limits)
        self._dialogues: set[Dialogue] = set()
        self._accepting: set[trio.CancelScope] = set()
        self._ends = math.inf
        self._scopes: set[trio.CancelScope] = set()

    async def serve(
        self,
        listeners: Sequence[ListenerT],
        role: Role | None = None,
        *,
        task_status: trio.TaskStatus[list[ListenerT]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections and talk with each, until drained.

        ``role``: what is other for these listeners; ``serve`` may be called once for each role, at the same time, and
        the limits hold for all together. ConfigError for a role that cannot be.
        ``task_status.started`` is called with the listeners once they accept. Closes them. Cancellation
        finishes the commits under way, tries one 421 for each client for at most a second,
        and closes. A want of file descriptors pauses accepting. No client ends the server.
        """
        receive = partial(self._receive, self._fill(role or Role()))
        # The scope lies inside of the nursery's own, so that a drain ends here and not in the caller.
        with self._until_cut_off():
            async with trio.open_nursery() as nursery:
                with self._until_drained():
                    await _accept(list(listeners), receive, nursery, task_status)

    def drain(self, grace: float = 10.0) -> None:
        """Stop: listeners close, idle clients get 421 at once, open transactions may finish.

        ``grace``: seconds after which those that have not finished are cut off. ``serve`` and ``talk`` return when
        all have ended. Nothing that was acknowledged is lost. May be called more than once;
        the shortest grace counts.
        """
        self._close(grace)
        for dialogue in self._dialogues:
            dialogue.drain()

    def _drain_after(self, last: Client) -> None:
        # Nobody whose mail was accepted: many clients take a 421 in the place of a 221 for a failure of their mail.
        self._close(_LAST_GRACE)
        for dialogue in self._dialogues:
            if not dialogue.has_accepted and dialogue.session_id != last.session_id:
                dialogue.drain()

    def _close(self, grace: float) -> None:
        self._ends = min(self._ends, trio.current_time() + grace)
        for scope in self._scopes:
            scope.deadline = self._ends
        for accepting in self._accepting:
            accepting.cancel()

    async def talk(self, stream: trio.abc.Stream, role: Role | None = None) -> None:
        """Hold one session over a stream that somebody else has accepted, to its end, and close the stream.

        For inetd and for tests; may be called at any time, beside ``serve`` too, and all that is said
        there of roles, limits, drains and cancellation holds here.
        """
        service = self._fill(role or Role())
        with self._until_cut_off():
            await self._receive(service, stream)

    def _fill(self, role: Role) -> Service:
        """Put together what a role says and what is the server's own."""
        own = self._own
        intake = role.intake or own.intake
        return Service(
            role.config or own.config,
            Hooks(role.policy or own.policy, self._lookups),
            intake if self._quota is None else self._quota.around(intake),
            self._limits,
            tls=self._tls,
            implicit_tls=role.implicit_tls,
            proxy_from=self._proxy_from,
            xclient_from=self._xclient_from,
        )

    @contextmanager
    def _until_cut_off(self) -> Generator[None, None, None]:
        """End the block when the grace of a drain is over."""
        with trio.CancelScope(deadline=self._ends) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    @contextmanager
    def _until_drained(self) -> Generator[None, None, None]:
        """End the block when a drain begins."""
        with trio.CancelScope() as scope:
            self._accepting.add(scope)
            if self._is_draining:
                scope.cancel()
            try:
                yield
            finally:
                self._accepting.discard(scope)

    @property
    def _is_draining(self) -> bool:
        return self._ends < math.inf

    async def _receive(self, service: Service, stream: trio.abc.Stream) -> None:
        """Hold one session, if it comes to one, and close the stream."""
        try:
            await self._admit(service, stream)
        finally:
            await close_at_once(stream)

    async def _admit(self, service: Service, stream: trio.abc.Stream) -> None:
        try:
            peer = _client_of(stream)
        except OSError as error:
            # The client reset the connection before it was accepted: there is nobody to talk to.
            _log.info("connection lost before it began: %s", error)
            return
        try:
            client = await _announced(peer, stream, service)
        except ProxyError as error:
            _log.info("%s: %s does not say for whom it speaks: %s", peer.session_id, peer.address, ascii(str(error)))
            return
        refusal = SHUTDOWN if self._is_draining else self._doorkeeper.enter(client.address)
        if refusal is not None:
            _log.warning("%s: refused %s: %s", client.session_id, client.address, refusal)
            await _refuse(stream, b"" if service.implicit_tls else bytes(refusal))
            return
        dialogue = Dialogue(stream, client, service, self._doorkeeper)
        self._dialogues.add(dialogue)
        try:
            await dialogue.run()
        finally:
            self._dialogues.discard(dialogue)
            self._doorkeeper.leave(client.address)


async def _accept(
    listeners: list[ListenerT],
    handle: Callable[[trio.abc.Stream], Awaitable[None]],
    nursery: trio.Nursery,
    task_status: trio.TaskStatus[list[ListenerT]],
) -> None:
    """Start ``handle`` for each connection, until cancelled; close the listeners then."""
    async with trio.open_nursery() as accepting:
        for listener in listeners:
            accepting.start_soon(_accept_from, listener, handle, nursery)
        task_status.started(listeners)


async def _accept_from(
    listener: trio.abc.Listener[trio.abc.Stream],
    handle: Callable[[trio.abc.Stream], Awaitable[None]],
    nursery: trio.Nursery,
) -> None:
    if isinstance(listener, trio.SocketListener | UnixListener):
        async with listener:
            await accept_all(listener.socket, handle, nursery)
    else:
        await trio.serve_listeners(handle, [listener], handler_nursery=nursery)


async def _refuse(stream: trio.abc.Stream, octets: bytes) -> None:
    with trio.move_on_after(_REFUSAL_TIMEOUT):
        try:
            await stream.send_all(octets)
        except trio.BrokenResourceError:
            _log.debug("a refused client was gone")


async def _announced(client: Client, stream: trio.abc.Stream, service: Service) -> Client:
    """Give the client for whom a proxy speaks; whoever is none is who it is. ProxyError, also if it takes too long."""
    if client.address not in service.proxy_from:
        return client
    with trio.move_on_after(service.limits.handshake_timeout):
        proxied = await read_header(stream)
        if proxied is None:
            return client
        return Client(
            client.session_id,
            proxied.address,
            proxied.port,
            local_address=proxied.local_address,
            local_port=proxied.local_port,
        )
    msg = "no PROXY header in time"
    raise ProxyError(msg)


def _client_of(stream: trio.abc.Stream) -> Client:
    """Give what is known of a client from its connection alone. OSError if it is gone already."""
    session_id = SessionId(secrets.token_hex(5))
    if not isinstance(stream, trio.SocketStream | SocketTransport) or stream.socket.family not in _INTERNET:
        return Client(session_id, None, None)
    address, port = _end(stream.socket.getpeername())
    local_address, local_port = _end(stream.socket.getsockname())
    return Client(session_id, address, port, local_address=local_address, local_port=local_port)


def _end(name: tuple[str, int]) -> tuple[IPv4Address | IPv6Address, int]:
    """Give one end of a connection; a mapped address is the IPv4 address that it stands for."""
    host, port, *_ = name
    return _address(host), port


@lru_cache(maxsize=1024)
def _address(host: str) -> IPv4Address | IPv6Address:
    return unmapped(ip_address(host.partition("%")[0]))


_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
