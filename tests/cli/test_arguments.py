"""The words of the command: what is wrong is said in one line that names the culprit."""

from __future__ import annotations

import argparse
import datetime as dt
import re
import socket
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from smtprecv.cli import _arguments, main
from smtprecv.cli._arguments import Options, parse_arguments
from smtprecv.cli._queue_arguments import SILENT
from smtprecv.deliveries import Command, Maildir, Mbox, Router, Webhook
from smtprecv.delivery import Attempt
from smtprecv.protocol import Config, Reply
from smtprecv.retry import Backoff
from smtprecv.server import Limits, Networks

SERVE = ["serve", "--listen", "127.0.0.1:0", "--queue", "q", "--deliver", "maildir:m", "--hostname", "mx.example.com"]

MORE = ["--queue", "q", "--hostname", "mx.example.com", "--deliver", "maildir:~/{domain}"]


def parsed(*argv: str) -> Options:
    """Give the options of ``serve`` with these arguments more."""
    return parse_arguments([*SERVE, *argv])


def test_defaults() -> None:
    """What is not said is as the library has it."""
    options = parsed()
    config, limits = Config("localhost"), Limits()
    assert options.backoff == Backoff()
    assert options.grace == dt.timedelta(seconds=10)
    assert (options.max_message_size, options.max_recipients) == (config.max_message_size, config.max_recipients)
    assert options.max_hops == config.max_hops
    assert options.max_connections == limits.max_connections
    assert options.max_connections_per_client == limits.max_connections_per_client
    assert (options.accept_domain, options.accept_any, options.runqueue) == ([], False, True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("4h", 14_400), ("5d", 432_000), ("0s", 0), ("3650d", 315_360_000)]
)
def test_duration(text: str, seconds: int) -> None:
    """Durations are a number and one of s, m, h, d."""
    assert parsed("--grace", text).grace == dt.timedelta(seconds=seconds)


def test_values() -> None:
    """Each value is read as what it means; names become A-labels, and arguments that may repeat add up."""
    options = parsed(
        "--listen", "[::1]:25", "--accept-domain", "B\u00dcCHER.example", "--accept-domain", "[192.0.2.1]",
        "--hostname", "MX.example.com", "--max-recipients", "100", "--no-runqueue",
    )  # fmt: skip
    assert options.listen == ["127.0.0.1:0", "[::1]:25"]
    assert options.accept_domain == ["xn--bcher-kva.example", "[192.0.2.1]"]
    assert options.hostname == "mx.example.com"
    assert options.max_recipients == 100
    assert not options.runqueue
    assert options.queue == Path("q")


def test_values_of_listeners() -> None:
    """Addresses of every kind are taken as they are; networks become what they mean, and add up."""
    addresses = ["unix:/run/lmtp,mode=660,group=postfix", "systemd:lmtp", "fd:3", "[::1]:24"]
    options = parsed(
        *(word for address in addresses for word in ("--lmtp-listen", address)), "--tls-listen", "127.0.0.1:0",
        *("--proxy-from", "192.0.2.0/24", "--proxy-from", "unix", "--xclient-from", "2001:db8::1"),
        *("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--auth-file", "users"),
    )  # fmt: skip
    assert (options.lmtp_listen, options.tls_listen) == (addresses, ["127.0.0.1:0"])
    assert Networks(tuple(options.proxy_from)) == Networks.of("192.0.2.0/24", "unix")
    assert Networks(tuple(options.xclient_from)) == Networks.of("2001:db8::1")
    assert (options.tls_cert, options.tls_key, options.auth_file) == (Path("cert.pem"), Path("key.pem"), Path("users"))


def test_deliver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A delivery is made for the receiver's name; ~ is the home folder, as the shell does not see it there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = parse_arguments(["runqueue", *MORE, "0123456789abcdefghij"])
    assert options.deliver is not None
    delivery = options.deliver(hostname="mx.example.com")
    assert isinstance(delivery, Maildir)
    assert (delivery._template.prefix, delivery._hostname) == (tmp_path, "mx.example.com")
    assert options.ids == ["0123456789abcdefghij"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mbox:{address}", Mbox),
        ("command:procmail -a {recipient}", Command),
        ("command:deliver -- {recipients}", Command),
        ("https://hook.example/x=y:z#format=json&per=message&redirects=2&allow=10.0.0.0/8,fd00::/8", Webhook),
        ("http://127.0.0.1/#allow=127.0.0.1", Webhook),
        ("python:tests.cli.test_arguments:Mine", object),
        ("a.example=maildir:m", Router),
        ("[IPv6:2001:db8::1]=maildir:m", Router),
        ("maildir:a=b", Maildir),
    ],
)
def test_deliveries(text: str, kind: type) -> None:
    """Each form of a delivery makes one of its kind."""
    options = parse_arguments(["runqueue", "--queue", "q", "--deliver", text])
    assert isinstance(options.delivery, kind)
    assert options.delivery is not None


class Mine:
    """A delivery of a user."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Take all."""
        return [Reply(250, "mine")] * len(attempt.recipients)


def test_secret_file(tmp_path: Path) -> None:
    """The secret of a web hook stands in a file, not on the command line."""
    (tmp_path / "secret").write_text("0123456789abcdef\n")
    options = parse_arguments(["runqueue", "--queue", "q", "--deliver", f"https://x/#secret-file={tmp_path}/secret"])
    assert isinstance(options.delivery, Webhook)
    assert options.delivery._secret == "0123456789abcdef"  # noqa: S105  # no secret of ours


def test_routes() -> None:
    """Whatever stands first on the line, addresses go before domains, and those before what is for all."""
    argv = ["--deliver", "mbox:rest", "--deliver", "B.example=mbox:b", "--deliver", "x@b.example=mbox:x"]
    options = parse_arguments(["runqueue", "--queue", "q", *argv])
    router = options.delivery
    assert isinstance(router, Router)
    paths = [route.delivery._template.prefix.name for route in router._routes if isinstance(route.delivery, Mbox)]
    assert paths == ["x", "b", "rest"]


@pytest.mark.parametrize(
    ("argv", "culprit"),
    [
        ([], "COMMAND"),
        (["send"], "'send'"),
        (["serve"], "--queue"),
        (["showqueue"], "--queue"),
        (["runqueue", "--queue", "q"], "--deliver"),
        ([*SERVE, "--listen", "localhost"], "--listen: 'localhost' is not HOST:PORT"),
        ([*SERVE, "--listen", "[::1]:65536"], "--listen: '[::1]:65536'"),
        ([*SERVE, "--tls-listen", "25"], "--tls-listen: '25' is not HOST:PORT"),
        ([*SERVE, "--lmtp-listen", "unix:lmtp"], "--lmtp-listen: 'lmtp' is not /PATH"),
        ([*SERVE, "--listen", "unix:/s,mode=9"], "--listen: '/s,mode=9' is not /PATH"),
        ([*SERVE, "--listen", "systemd:"], "--listen: 'systemd:' is not HOST:PORT"),
        ([*SERVE, "--tls-cert", ""], "--tls-cert: ''"),
        ([*SERVE, "--auth-file", "a\0b"], "--auth-file: 'a\\x00b' is not a path"),
        ([*SERVE, "--proxy-from", "192.0.2.1/24"], "--proxy-from: '192.0.2.1/24' is not a network"),
        ([*SERVE, "--xclient-from", "localhost"], "--xclient-from: 'localhost' is not a network"),
        ([*SERVE, "--messages", "0"], "--messages: '0'"),
        ([*SERVE, "--log", "xml"], "--log: 'xml' is not text, json, syslog or journal"),
        ([*SERVE, "--log", "syslog:"], "--log: 'syslog:'"),
        ([*SERVE, "--log", "text:x"], "--log: 'text:x'"),
        ([*SERVE, "--log-name", "a b"], "--log-name: 'a b'"),
        ([*SERVE, "--log-facility", "post"], "--log-facility"),
        ([*SERVE, "--deliver", "maildir"], "--deliver: 'maildir' is none of maildir:PATH, mbox:PATH, smtp:"),
        ([*SERVE, "--deliver", "maildir:"], "--deliver: 'maildir:'"),
        ([*SERVE, "--deliver", "lpd:x"], "--deliver: 'lpd:x'"),
        ([*SERVE, "--deliver", "mbox:x"], "--deliver: there are two deliveries for all recipients"),
        ([*SERVE, "--deliver", "a.example=mbox:x", "--deliver", "A.example=mbox:y"], "two deliveries for a.example"),
        ([*SERVE, "--deliver", "a b=mbox:x"], "--deliver: route 'a b' is no domain"),
        ([*SERVE, "--deliver", "a.example=mbox"], "--deliver: 'mbox' is none of"),
        ([*SERVE, "--deliver", "a.example=mbox:{user}"], "--deliver: path '{user}'"),
        ([*SERVE, "--deliver", "a.example=command:x 'y"], '--deliver: command "x \'y": No closing quotation'),
        ([*SERVE, "--deliver", "a.example=command:x --to={recipient}"], "{recipient} must be the whole argument"),
        ([*SERVE, "--deliver", "a.example=http://192.0.2.1/"], "--deliver: 'http://192.0.2.1/' is not https"),
        ([*SERVE, "--deliver", "a.example=https:"], "--deliver: 'https:' is none of"),
        ([*SERVE, "--deliver", "a.example=https://x/#format=xml"], "'format' is not as it should be"),
        ([*SERVE, "--deliver", "a.example=https://x/#per=day"], "'per' is not as it should be"),
        ([*SERVE, "--deliver", "a.example=https://x/#redirects=-1"], "'redirects' is not as it should be"),
        ([*SERVE, "--deliver", "a.example=https://x/#user=x"], "'user' is not as it should be"),
        ([*SERVE, "--deliver", "a.example=https://x/#allow=x"], "--deliver: 'x' is not a network"),
        ([*SERVE, "--deliver", "a.example=https://x/#secret-file=/nowhere/x"], "cannot be read from '/nowhere/x'"),
        ([*SERVE, "--deliver", "a.example=python:no_such_mail:x"], "ModuleNotFoundError"),
        ([*SERVE, "--deliver", "maildir:/m/{user}"], "--deliver: path '/m/{user}': {user} is unknown"),
        ([*SERVE, "--deliver", "maildir:~nobody-here/x"], "--deliver: "),
        ([*SERVE, "--hostname", "a_b"], "--hostname: 'a_b' is not a domain"),
        ([*SERVE, "--accept-domain", "a..b"], "--accept-domain: 'a..b'"),
        ([*SERVE, "--accept-domain", "example.com", "--accept-any"], "--accept-any: not allowed with"),
        ([*SERVE, "--queue", ""], "--queue: ''"),
        ([*SERVE, "--grace", "5"], "--grace: '5' is not a duration"),
        ([*SERVE, "--grace", "-5s"], "--grace"),
        ([*SERVE, "--give-up", "3651d"], "--give-up: '3651d'"),
        ([*SERVE, "--max-recipients", "99"], "--max-recipients: '99' is not a number of at least 100"),
        ([*SERVE, "--max-message-size", "1"], "--max-message-size"),
        ([*SERVE, "--max-message-size", "9" * 5000], "--max-message-size"),
        ([*SERVE, "--max-hops", "x"], "--max-hops"),
        ([*SERVE, "--max-conn", "5"], "--max-conn"),
        ([*SERVE, "\x1b]evil\n"], "\\x1b]evil\\n"),
        ([*SERVE, "--accept-domain", "\udcff"], "--accept-domain: '\\udcff'"),
        (["showqueue", "--queue", "q", "\udcff"], "ID: '\\udcff'"),
    ],
)
def test_wrong(argv: list[str], culprit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, one printable line on standard error that names what is wrong, and nothing else."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert culprit in err
    assert err.startswith("smtprecv")
    assert err.removesuffix("\n").isprintable()


def test_machine_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose name is no domain is localhost: nobody is blamed for a --hostname that was not given."""
    monkeypatch.setattr(socket, "gethostname", lambda: "my_host")

    assert parse_arguments(["runqueue", "--queue", "q", "--deliver", "maildir:m"]).hostname == "localhost"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the distribution's."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"smtprecv {project['version']}\n"


def test_help_names_every_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of ``serve`` tells every default."""
    monkeypatch.setattr(socket, "gethostname", lambda: "mx")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    log = ["text", "smtprecv", "mail"]
    told = re.findall(r"default\s+(\w+)", capsys.readouterr().out)
    queue = ["5m", "4h", "5d", "4h", "30s", "15m", "10", "5"]
    assert told == ["mx", *queue, "1", "52428800", "1000", "100", "1000", "100", "10s", *log]


def _dests(parser: argparse.ArgumentParser) -> set[str]:
    """Give the names of the options of a command and of its verbs."""
    verbs = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    own = {action.dest for action in parser._actions if not isinstance(action, argparse._HelpAction)}
    return own.union(*(_dests(verb) for choices in verbs for verb in choices.values()))


def test_options_have_types() -> None:
    """Every argument of every command has its type in Options, and no type is left over."""
    parser = _arguments._parser(_arguments._COMMANDS)
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    dests = {"command", *SILENT}.union(*(_dests(command) for command in commands.choices.values()))
    assert dests == set(Options.__annotations__)


@pytest.mark.parametrize("command", ["serve", "runqueue", "showqueue", "queue", "queue redirect", "passwd"])
def test_help_is_readable(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of each command fits a terminal, and says something of every option."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert re.findall(r"^  (--\S+(?: \S+)?)\n  \S", text, re.MULTILINE) == []
