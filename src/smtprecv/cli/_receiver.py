"""The receiver that the arguments of ``serve`` describe, and what they must not describe.

Its one rule: nobody opens a relay or a spam trap, or lets passwords be sent in clear, by accident.
"""

from __future__ import annotations

import re
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

_SOURCES: Final = ("listen", "tls-listen", "lmtp-listen", "stdio")
_TAKES: Final = ("accept-domain", "accept-any", "require-auth")
"""What says who may send to whom; without any of these everything is taken, from this machine alone."""

_ALONE: Final = ("stdio", "messages")
"""What only one process can do."""

_PASSED: Final = re.compile(r"fd:|systemd(:|$)")
"""The addresses of sockets that somebody else has opened."""

_NEEDS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("tls-cert", ("tls-key",)),
    ("tls-key", ("tls-cert",)),
    ("tls-listen", ("tls-cert",)),
    ("require-tls", ("tls-cert",)),
    ("auth-file", ("tls-cert", "auth-without-tls")),
    ("auth-without-tls", ("auth-file",)),
    ("require-auth", ("auth-file",)),
    ("lmtp-direct", ("lmtp-listen",)),
    ("lmtp-direct", ("deliver",)),
    ("proxy-from", _TAKES),  # a proxy on loopback speaks for strangers
)
"""Which option needs which others, one of them at least."""


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
    if options.listen:
        yield options.listen, Role(), ""
    if options.tls_listen:
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
    listening = _listening(options)
    if options.stdio and listening:
        msg = f"{listening[0][0]} does not go together with --stdio"
        raise ConfigError(msg)
    if not options.stdio and not listening:
        msg = f"mail must come from somewhere: {_any_of(_SOURCES)}"
        raise ConfigError(msg)
    alone = [word for word in _ALONE if _is_given(options, word)]
    if options.workers > 1 and alone:
        msg = f"--{alone[0]} does not go together with --workers"
        raise ConfigError(msg)
    passed = [address for _, address in listening if _PASSED.match(address)]
    if len(passed) > len({*passed}) or ("systemd" in passed and len(passed) > 1):
        msg = "a socket that was passed is listened on once: tell them apart by systemd:NAME"
        raise ConfigError(msg)
    for word, others in _NEEDS:
        if _is_given(options, word) and not _is_one_given(options, others):
            msg = f"--{word} needs {_any_of(others)}"
            raise ConfigError(msg)
    for culprit, address in listening:
        host = host_in(address)
        if host is not None and not _is_loopback(host) and not _is_one_given(options, _TAKES):
            _refuse(culprit)


def refuse_open_sockets(options: Options, listeners: Sequence[Listener], stream: trio.abc.Stream | None) -> None:
    """ConfigError for sockets that were opened by somebody else, where an address would have been refused."""
    if _is_one_given(options, _TAKES):
        return
    sockets = [listener.socket for listener in listeners]
    if isinstance(stream, trio.SocketStream):
        sockets.append(stream.socket)
    for opened in sockets:
        if opened.family != socket.AF_UNIX and not _is_loopback(opened.getsockname()[0]):
            _refuse("the socket that was inherited")


def _refuse(culprit: str) -> NoReturn:
    msg = f"{culprit} is not loopback: say what to take, by {_any_of(_TAKES)}"
    raise ConfigError(msg)


def _listening(options: Options) -> Sequence[tuple[str, str]]:
    """Give each address to listen on, behind the words that say so."""
    given = {"listen": options.listen, "tls-listen": options.tls_listen, "lmtp-listen": options.lmtp_listen}
    return [(f"--{word} {address}", address) for word, addresses in given.items() for address in addresses]


def _is_one_given(options: Options, words: Sequence[str]) -> bool:
    return any(_is_given(options, word) for word in words)


def _is_given(options: Options, word: str) -> bool:
    return bool(getattr(options, word.replace("-", "_")))


def _any_of(words: Sequence[str]) -> str:
    return " or ".join(f"--{word}" for word in words)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # A name may come to mean another address; this one may not (RFC 6761 section 6.3).
        return host == "localhost"
