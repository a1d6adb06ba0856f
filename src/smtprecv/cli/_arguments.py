"""The words of the command line, and what may stand behind each.

A value is read where it is given, so that the message can name the argument. Its one rule: the words of a command
are imported and put together when that command is given, so that ``queue`` waits for no server.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, final

from smtprecv.cli._terminal import printable
from smtprecv.message import QueueId

if TYPE_CHECKING:
    from smtprecv.cli._log import LogTarget
    from smtprecv.cli._scheme import MakeDelivery
    from smtprecv.cli._worker import Worker
    from smtprecv.delivery import Delivery
    from smtprecv.queue import Bounces, DestinationLimits
    from smtprecv.retry import Backoff
    from smtprecv.server import Network


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
    workers: int = 1
    worker: Worker | None = None
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
        from smtprecv.queue import Bounces

        delivery = self.bounce(hostname=self.hostname, envelope_to=self.envelope_to)
        return Bounces(delivery, self.hostname, self.warn_after)

    @property
    def backoff(self) -> Backoff:
        """The retry policy that the arguments describe; ConfigError if it would spin or run backwards."""
        from smtprecv.retry import Backoff

        return Backoff(first=self.retry_first, longest=self.retry_max, give_up_after=self.give_up)

    @property
    def destinations(self) -> DestinationLimits:
        """The limits of each destination that the arguments describe; ConfigError for pauses that run backwards."""
        from smtprecv.queue import DestinationLimits

        return DestinationLimits(
            self.destination_concurrency, self.destination_failures, self.destination_pause, self.destination_pause_max
        )


def parse_arguments(argv: Sequence[str] | None) -> Options:
    """Read the arguments. SystemExit with status 2 and one line for wrong ones, 0 for ``--help`` and ``--version``."""
    words = sys.argv[1:] if argv is None else argv
    return _parser(words).parse_args(words, namespace=Options())


@final
class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(2, f"{self.prog}: {printable(message)}\n")


@final
class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Write the version, which stands in the metadata of what is installed."""
        from importlib.metadata import version

        sys.stdout.write(f"smtprecv {version('smtprecv')}\n")
        parser.exit()


def _parser(words: Collection[str]) -> argparse.ArgumentParser:
    """Give the parser of these words; the commands that are not among them have no arguments."""
    parser = _Parser(prog="smtprecv", description="Receive mail by SMTP.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_arguments, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        if name in words:
            add_arguments(command)
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    from smtprecv.cli._serve_arguments import add_serve

    add_serve(parser)


def _add_runqueue(parser: argparse.ArgumentParser) -> None:
    from smtprecv.cli._delivery_arguments import add_runqueue

    add_runqueue(parser)


def _add_showqueue(parser: argparse.ArgumentParser) -> None:
    from smtprecv.cli._delivery_arguments import add_showqueue

    add_showqueue(parser)


def _add_queue(parser: argparse.ArgumentParser) -> None:
    from smtprecv.cli._queue_arguments import add_queue_command

    add_queue_command(parser)


def _add_passwd(parser: argparse.ArgumentParser) -> None:
    from smtprecv.cli._queue_arguments import SILENT
    from smtprecv.cli._values import read_path, value
    from smtprecv.policies import read_user

    add = parser.add_argument
    parser.set_defaults(**SILENT)
    add("--delete", action="store_true", help="delete the user")
    add("file", metavar="FILE", type=value(read_path), help="the password file, made if it is not there")
    add("user", metavar="USER", type=value(read_user), help="whose password it is")
    parser.epilog = "The password is asked for on the terminal, or is the first line of standard input."


_COMMANDS: Final[Mapping[str, tuple[Callable[[argparse.ArgumentParser], None], str]]] = {
    "serve": (_add_serve, "receive mail, and run the queue"),
    "runqueue": (_add_runqueue, "try once what is due, or the messages named"),
    "showqueue": (_add_showqueue, "show the messages in the queue"),
    "queue": (_add_queue, "look at the messages in the queue, and steer them"),
    "passwd": (_add_passwd, "set a user's password in a password file"),
}
"""The commands, with what adds their arguments, and what they are for."""
