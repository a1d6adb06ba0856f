"""The words of the command line, and what may stand behind each.

A value is read where it is given, so that the message can name the argument.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn, final

from smtprecv.cli._log import FACILITIES, LogTarget, read_log_name, read_log_target
from smtprecv.cli._queue_arguments import SILENT, add_ids, add_queue, add_queue_command
from smtprecv.cli._routes import AddRoutes, read_routes
from smtprecv.cli._terminal import printable
from smtprecv.cli._values import (
    FORMS,
    MakeDelivery,
    read_address,
    read_delivery,
    read_duration,
    read_host,
    read_number,
    read_path,
    value,
)
from smtprecv.delivery import Delivery
from smtprecv.hostname import own_hostname
from smtprecv.message import QueueId
from smtprecv.policies import read_user
from smtprecv.protocol import Config
from smtprecv.queue import Bounces, DestinationLimits
from smtprecv.retry import Backoff
from smtprecv.server import Limits, Network, parse_network

_CONFIG: Final = Config("localhost")
_LIMITS: Final = Limits()
_DESTINATIONS: Final = DestinationLimits()


@final
class Options(argparse.Namespace):
    """The arguments of one command; a command has those that its parser defines."""

    command: str
    log: LogTarget
    log_name: str
    log_facility: str
    queue: Path
    deliver: MakeDelivery | None
    bounce: MakeDelivery | None
    warn_after: dt.timedelta
    envelope_to: bool
    hostname: str
    stdio: bool
    messages: int | None
    reverse_dns: bool
    ident: bool
    listen: list[str]
    tls_listen: list[str]
    lmtp_listen: list[str]
    lmtp_direct: bool
    tls_cert: Path | None
    tls_key: Path | None
    require_tls: bool
    auth_file: Path | None
    auth_without_tls: bool
    require_auth: bool
    proxy_from: list[Network]
    xclient_from: list[Network]
    accept_domain: list[str]
    accept_any: bool
    max_message_size: int
    max_recipients: int
    max_hops: int
    max_connections: int
    max_connections_per_client: int
    retry_first: dt.timedelta
    retry_max: dt.timedelta
    give_up: dt.timedelta
    destination_concurrency: int
    destination_failures: int
    destination_pause: dt.timedelta
    destination_pause_max: dt.timedelta
    grace: dt.timedelta
    runqueue: bool
    json: bool
    ids: list[QueueId]
    verb: str
    senders: list[str]
    recipients: list[str]
    domains: list[str]
    statuses: list[str]
    older_than: dt.timedelta | None
    limit: int | None
    dry_run: bool
    to: list[str]
    folder: Path
    paths: list[Path]
    hold: bool
    remove: bool
    file: Path
    user: str
    delete: bool

    @property
    def delivery(self) -> Delivery | None:
        """The delivery that the arguments describe; None without ``--deliver``."""
        return None if self.deliver is None else self.deliver(hostname=self.hostname, envelope_to=self.envelope_to)

    @property
    def bounces(self) -> Bounces | None:
        """The reports that the arguments describe; None without ``--bounce``."""
        if self.bounce is None:
            return None
        delivery = self.bounce(hostname=self.hostname, envelope_to=self.envelope_to)
        return Bounces(delivery, self.hostname, self.warn_after)

    @property
    def backoff(self) -> Backoff:
        """The retry policy that the arguments describe; ConfigError if it would spin or run backwards."""
        return Backoff(first=self.retry_first, longest=self.retry_max, give_up_after=self.give_up)

    @property
    def destinations(self) -> DestinationLimits:
        """The limits of each destination that the arguments describe; ConfigError for pauses that run backwards."""
        return DestinationLimits(
            self.destination_concurrency, self.destination_failures, self.destination_pause, self.destination_pause_max
        )


def parse_arguments(argv: Sequence[str] | None) -> Options:
    """Read the arguments. SystemExit with status 2 and one line for wrong ones, 0 for ``--help`` and ``--version``."""
    return _parser().parse_args(argv, namespace=Options())


@final
class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(2, f"{self.prog}: {printable(message)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="smtprecv", description="Receive mail by SMTP.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"smtprecv {version('smtprecv')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_arguments, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        add_arguments(command)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s --queue DIR --deliver maildir:PATH --listen ADDRESS [OPTION ...]"
    add_queue(parser)
    _add_listeners(parser)
    _add_tls(parser)
    _add_senders(parser)
    _add_clients(parser)
    _add_delivery(parser, is_required=False)
    parser.add_argument("--no-runqueue", dest="runqueue", action="store_false",
        help="only receive; the queue is run by somebody else")  # fmt: skip
    _add_limits(parser)
    _add_log(parser)
    parser.epilog = (
        "ADDRESS: HOST:PORT, or [::1]:PORT for IPv6, and port 0 for one that the system chooses; "
        "unix:/PATH[,mode=660][,owner=USER][,group=GROUP]; systemd or systemd:NAME, sockets that systemd has passed; "
        "fd:N, a listening socket that was inherited. NETWORK: 192.0.2.0/24, 2001:db8::/32, a single address, or unix, "
        "the clients of Unix sockets. DURATION: 30s, 5m, 4h, 5d. What has ADDRESS, NETWORK or DOMAIN may be repeated."
    )


def _add_listeners(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where mail comes in").add_argument
    for name, text in _LISTENERS:
        add(f"--{name}", action="append", default=[], metavar="ADDRESS", type=value(read_address), help=text)
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


def _add_runqueue(parser: argparse.ArgumentParser) -> None:
    add_queue(parser)
    _add_delivery(parser, is_required=True)
    _add_log(parser)
    add_ids(parser, "try this message, due or not, its failed recipients too; by default all that are due")


def _add_showqueue(parser: argparse.ArgumentParser) -> None:
    add_queue(parser)
    parser.set_defaults(**SILENT)
    parser.add_argument("--json", action="store_true", help="write one object a line")
    parser.epilog = (
        "The keys of an object are id, size, arrival, sender, body, smtputf8, ret, envid, deliver_by, priority, "
        "require_tls, auth, client, last_attempt, next_attempt, held, warned, report_of, error, note_size and "
        "recipients; those of a "
        "client are address, "
        "port, host, ident, dialect, hello, tls (version, cipher, bits, client_name) and identity; those of a "
        "recipient are address, original, notify, orcpt, status, attempts, last_reply and next_attempt. What was not "
        "given is null; envid and orcpt are as the client wrote them, and notify is empty for NEVER."
    )
    _add_where(parser, "also ask there who has a message already, though that is not recorded yet", is_required=False)
    add_ids(parser, "show this message; by default all")


def _add_passwd(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.set_defaults(**SILENT)
    add("--delete", action="store_true", help="delete the user")
    add("file", metavar="FILE", type=value(read_path), help="the password file, made if it is not there")
    add("user", metavar="USER", type=value(read_user), help="whose password it is")
    parser.epilog = "The password is asked for on the terminal, or is the first line of standard input."


def _add_log(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the log").add_argument
    add("--log", metavar="text|json|syslog|journal", type=value(read_log_target), default="text",
        help="text or json on standard error, or the daemon that does the logging here; syslog:PATH and "
        "journal:PATH name another socket; default %(default)s")  # fmt: skip
    add("--log-name", metavar="NAME", type=value(read_log_name), default="smtprecv",
        help="what this program is called in the log of a daemon, default %(default)s")  # fmt: skip
    add("--log-facility", metavar="NAME", choices=FACILITIES, default="mail",
        help="the syslog facility, default %(default)s")  # fmt: skip


def _add_delivery(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    text = "{domain}, {local_part} and {address} in the PATH of a Maildir are the recipient's"
    _add_where(parser, f"where mail goes; {text}", is_required=is_required)
    add = parser.add_argument
    add("--bounce", metavar="DELIVERY", type=value(read_delivery),
        help="tell senders what became of their mail; the reports go there, in any form that --deliver has; "
        "without it nobody is told, and who has failed stays in the queue")  # fmt: skip
    add("--envelope-to", action="store_true",
        help="add an X-Envelope-To field to each copy; it tells for whom the copy is, of blind copies too")  # fmt: skip
    for name, default, what in _DURATIONS:
        add(
            f"--{name}",
            metavar="DURATION",
            type=value(read_duration),
            default=default,
            help=f"{what}, default {default}",
        )
    for name, number, what in _DESTINATION_NUMBERS:
        add(f"--{name}", metavar="N", type=value(read_number(1)), default=number, help=f"{what}, default %(default)s")


def _add_where(parser: argparse.ArgumentParser, text: str, *, is_required: bool) -> None:
    add = parser.add_argument
    add("--deliver", required=is_required, metavar="[TO=]DELIVERY", type=value(read_routes), action=AddRoutes,
        help=f"{text}: {FORMS}; may be repeated, TO is a DOMAIN, .DOMAIN or ADDRESS whose mail goes there")  # fmt: skip
    add("--hostname", metavar="NAME", type=value(read_host), default=own_hostname(),
        help="this receiver's own name, default %(default)s")  # fmt: skip


_COMMANDS: Final[Mapping[str, tuple[Callable[[argparse.ArgumentParser], None], str]]] = {
    "serve": (_add_serve, "receive mail, and run the queue"),
    "runqueue": (_add_runqueue, "try once what is due, or the messages named"),
    "showqueue": (_add_showqueue, "show the messages in the queue"),
    "queue": (add_queue_command, "look at the messages in the queue, and steer them"),
    "passwd": (_add_passwd, "set a user's password in a password file"),
}

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

_DURATIONS: Final[Sequence[tuple[str, str, str]]] = (
    ("retry-first", "5m", "the wait after the first failure; each next one is twice as long"),
    ("retry-max", "4h", "the longest wait"),
    ("give-up", "5d", "the age past which a message is not tried again"),
    ("warn-after", "4h", "the age from which on its sender is warned that it is late, with --bounce"),
    ("destination-pause", "30s", "the first pause of a destination that is not well; each next one is twice as long"),
    ("destination-pause-max", "15m", "the longest pause"),
)

_DESTINATION_NUMBERS: Final[Sequence[tuple[str, int, str]]] = (
    (
        "destination-concurrency",
        _DESTINATIONS.concurrency,
        "attempts at one time at one next hop or web hook",
    ),
    ("destination-failures", _DESTINATIONS.failures, "failures in a row after which a destination has a pause"),
)
