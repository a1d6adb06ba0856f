"""The receiver that the arguments of ``serve`` describe, and what they must not describe.

Its one rule: nobody opens a relay or a spam trap, or lets passwords be sent in clear, by accident.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, NoReturn

import trio

from smtprecv.cli._arguments import Options
from smtprecv.errors import ConfigError
from smtprecv.policies import AcceptDomains, PasswordFile
from smtprecv.policy import All, Policy
from smtprecv.protocol import Config, Dialect
from smtprecv.server import (
    DirectIntake,
    Ident,
    Limits,
    Listener,
    Networks,
    ReverseDns,
    Role,
    Server,
    SpoolIntake,
    TlsFiles,
    host_in,
)
from smtprecv.spool import Spool


def prepare_server(options: Options, limits: Limits) -> Callable[[Spool], Server]:
    """Read the files that a server needs, and give what makes it over a spool. ConfigError or OSError if that fails."""
    tls = None if options.tls_cert is None or options.tls_key is None else TlsFiles(options.tls_cert, options.tls_key)
    policy = _policy(options)

    def make(spool: Spool) -> Server:
        return Server(
            SpoolIntake(spool),
            config=_config(options),
            policy=policy,
            limits=limits,
            host_lookup=ReverseDns() if options.reverse_dns else None,
            ident_lookup=Ident() if options.ident else None,
            max_messages=options.messages,
            tls=tls,
            proxy_from=Networks(tuple(options.proxy_from)),
            xclient_from=Networks(tuple(options.xclient_from)),
        )

    return make


def roles(options: Options) -> Iterator[tuple[Sequence[str], Role, str]]:
    """Give the addresses to listen on, with the role of each kind and what the log says of it."""
    yield options.listen, Role(), ""
    yield options.tls_listen, Role(implicit_tls=True), " (TLS)"
    if options.lmtp_listen:
        delivery = options.delivery if options.lmtp_direct else None
        intake = None if delivery is None else DirectIntake(delivery)
        yield options.lmtp_listen, Role(replace(_config(options), dialect=Dialect.LMTP), intake=intake), " (LMTP)"


def _config(options: Options) -> Config:
    return Config(
        options.hostname,
        options.max_message_size,
        options.max_recipients,
        options.max_hops,
        requires_tls=options.require_tls,
        requires_auth=options.require_auth,
        auth_without_tls=options.auth_without_tls,
    )


def _policy(options: Options) -> Policy | None:
    policies: list[Policy] = []
    if options.accept_domain:
        policies.append(AcceptDomains(options.accept_domain, options.hostname, trusts_users=True))
    if options.auth_file is not None:
        policies.append(PasswordFile(options.auth_file))
    return All(*policies) if policies else None


def refuse_contradictions(options: Options) -> None:
    """ConfigError for arguments that do not go together."""
    addresses = [
        *((f"--listen {address}", address) for address in options.listen),
        *((f"--tls-listen {address}", address) for address in options.tls_listen),
        *((f"--lmtp-listen {address}", address) for address in options.lmtp_listen),
    ]
    for is_wrong, text in (
        (options.stdio and addresses, "--stdio does not go together with listening"),
        (not (options.stdio or addresses), f"one of {', '.join(_SOURCES)} is needed"),
        ((options.tls_cert is None) is not (options.tls_key is None), "--tls-cert and --tls-key need each other"),
        (options.tls_cert is None and options.tls_listen, "--tls-listen needs --tls-cert"),
        (options.tls_cert is None and options.require_tls, "--require-tls needs --tls-cert"),
        (options.auth_file is None and options.require_auth, "--require-auth needs --auth-file"),
        (options.auth_file is None and options.auth_without_tls, "--auth-without-tls needs --auth-file"),
        (
            options.auth_file is not None and options.tls_cert is None and not options.auth_without_tls,
            "--auth-file needs --tls-cert, or --auth-without-tls to take passwords in clear",
        ),
        (options.lmtp_direct and not options.lmtp_listen, "--lmtp-direct needs --lmtp-listen"),
        (options.lmtp_direct and options.deliver is None, "--lmtp-direct needs --deliver"),
    ):
        if is_wrong:
            raise ConfigError(text)
    if not _is_closed(options):
        for culprit, address in addresses:
            host = host_in(address)
            if host is not None and not _is_loopback(host):
                _refuse(culprit)


_SOURCES: Final = ("--listen", "--tls-listen", "--lmtp-listen", "--stdio")


def refuse_open_sockets(options: Options, listeners: Sequence[Listener], stream: trio.abc.Stream | None) -> None:
    """ConfigError for sockets that were opened by somebody else, where an address would have been refused."""
    if _is_closed(options):
        return
    sockets = [listener.socket for listener in listeners]
    if isinstance(stream, trio.SocketStream):
        sockets.append(stream.socket)
    for opened in sockets:
        if opened.family != socket.AF_UNIX and not _is_loopback(opened.getsockname()[0]):
            _refuse("the socket that was inherited")


def _is_closed(options: Options) -> bool:
    """Say whether it was said who may send to whom."""
    return bool(options.accept_domain) or options.accept_any or options.require_auth


def _refuse(culprit: str) -> NoReturn:
    msg = f"{culprit} is not loopback: say what to take, with --accept-domain DOMAIN, --accept-any or --require-auth"
    raise ConfigError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # A name may come to mean another address; this one may not (RFC 6761 section 6.3).
        return host == "localhost"
