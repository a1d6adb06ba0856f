"""The words of ``smtprecv serve``: where mail comes in and from whom, where it goes, and how much of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from smtprecv.cli._delivery_arguments import add_delivery, add_log
from smtprecv.cli._queue_arguments import add_queue
from smtprecv.cli._values import read_duration, read_host, read_number, read_path, value
from smtprecv.cli._worker import read_worker
from smtprecv.protocol import Config
from smtprecv.server import Limits, host_in, parse_network

_CONFIG: Final = Config("localhost")
_LIMITS: Final = Limits()


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.usage = "%(prog)s --queue DIR --deliver maildir:PATH --listen ADDRESS [OPTION ...]"
    add_queue(parser)
    _add_listeners(parser)
    _add_tls(parser)
    _add_senders(parser)
    _add_clients(parser)
    add_delivery(parser, is_required=False)
    parser.add_argument("--no-runqueue", dest="runqueue", action="store_false",
        help="only receive; the queue is run by somebody else")  # fmt: skip
    _add_limits(parser)
    _add_workers(parser)
    add_log(parser)
    parser.epilog = (
        "ADDRESS: HOST:PORT, or [::1]:PORT for IPv6, and port 0 for one that the system chooses; "
        "unix:/PATH[,mode=660][,owner=USER][,group=GROUP]; systemd or systemd:NAME, sockets that systemd has passed; "
        "fd:N, a listening socket that was inherited. NETWORK: 192.0.2.0/24, 2001:db8::/32, a single address, or unix, "
        "the clients of Unix sockets. DURATION: 30s, 5m, 4h, 5d. What has ADDRESS, NETWORK or DOMAIN may be repeated."
    )


def _add_listeners(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where mail comes in").add_argument
    for name, text in _LISTENERS:
        add(f"--{name}", action="append", default=[], metavar="ADDRESS", type=value(_read_address), help=text)
    add("--lmtp-direct", action="store_true",
        help="deliver what comes by LMTP before it is answered for, without the queue")  # fmt: skip
    add("--stdio", action="store_true", help="hold one session over standard input and output, and end")
    add("--messages", metavar="N", type=value(read_number(1)), help="end after so many messages were accepted")


def _add_tls(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("TLS").add_argument
    add("--tls-cert", metavar="FILE", type=value(read_path),
        help="the certificate and its chain in PEM: offers STARTTLS; read again when it changes")  # fmt: skip
    add("--tls-key", metavar="FILE", type=value(read_path), help="its key in PEM, without a password")
    add("--require-tls", action="store_true", help="take mail inside TLS only")


def _add_senders(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who may send to whom")
    accept = group.add_mutually_exclusive_group()
    accept.add_argument("--accept-domain", action="append", default=[], metavar="DOMAIN", type=value(read_host),
        help="take mail for every local part of this domain, and for no other domain")  # fmt: skip
    accept.add_argument("--accept-any", action="store_true", help="take mail for everybody, and not only on loopback")
    add = group.add_argument
    add("--auth-file", metavar="FILE", type=value(read_path),
        help="offer AUTH, inside TLS, to the users of this file (smtprecv passwd), who may send to anybody; "
        "read again when it changes")  # fmt: skip
    add("--auth-without-tls", action="store_true", help="offer AUTH in clear too")
    add("--require-auth", action="store_true", help="take mail from users only")


def _add_clients(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("who the client is").add_argument
    add("--proxy-from", action="append", default=[], metavar="NETWORK", type=value(parse_network),
        help="whoever connects from there is a proxy and must say for whom, by the PROXY protocol")  # fmt: skip
    add("--xclient-from", action="append", default=[], metavar="NETWORK", type=value(parse_network),
        help="offer XCLIENT and XFORWARD to whoever connects from there, and believe them")  # fmt: skip
    add("--reverse-dns", action="store_true",
        help="look for the name of each client before the banner (needs smtprecv[dns])")  # fmt: skip
    add("--ident", action="store_true", help="ask the ident service of each client before the banner (RFC 1413)")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("limits").add_argument
    for name, default, least, text in _NUMBERS:
        metavar = "OCTETS" if name.endswith("size") else "N"
        add(f"--{name}", metavar=metavar, type=value(read_number(least)), default=default,
            help=f"{text}, default %(default)s")  # fmt: skip
    add("--grace", metavar="DURATION", type=value(read_duration), default="10s",
        help="how long open transactions may go on after SIGTERM or SIGINT, default %(default)s")  # fmt: skip


def _read_address(text: str) -> str:
    """Check an address to listen on."""
    host_in(text)
    return text


_LISTENERS: Final = (
    ("listen", "where to listen for SMTP, with STARTTLS if there is a certificate"),
    ("tls-listen", "where to listen for SMTP inside TLS from the first octet on"),
    ("lmtp-listen", "where to listen for LMTP, with STARTTLS if there is a certificate"),
)

_NUMBERS: Final[Sequence[tuple[str, int, int, str]]] = (
    # RFC 5321 sections 4.5.3.1.7 and 4.5.3.1.8 set the least of the first two.
    ("max-message-size", _CONFIG.max_message_size, 64 * 1024, "the size of a message"),
    ("max-recipients", _CONFIG.max_recipients, 100, "recipients of a message"),
    ("max-hops", _CONFIG.max_hops, 1, "servers that a message has passed: more are a loop"),
    ("max-connections", _LIMITS.max_connections, 1, "connections at one time"),
    ("max-connections-per-client", _LIMITS.max_connections_per_client, 1, "those from one address"),
)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", metavar="N", type=value(read_number(1)), default=1,
        help="processes that receive and run the queue, one for each core, say; limits are those of each process; "
        "default %(default)s")  # fmt: skip
    parser.add_argument("--worker", type=value(read_worker), help=argparse.SUPPRESS)
