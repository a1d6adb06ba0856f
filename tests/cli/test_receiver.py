"""What the arguments of ``serve`` make of a server, and what they must not make of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from smtprecv.cli import _receiver, main
from smtprecv.cli._arguments import Options, parse_arguments
from smtprecv.protocol import Config, Dialect
from smtprecv.server import DirectIntake, Ident, Limits, Networks, ReverseDns, Role
from smtprecv.server._peer import Lookups
from smtprecv.spool import open_spool

GIVEN = ["--queue", "q", "--deliver", "maildir:m", "--hostname", "mx.example.com"]
SERVE = ["serve", "--listen", "127.0.0.1:0", *GIVEN]
TLS = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"]
USERS = ["--auth-file", "users"]
WORLD = ["--listen", "0.0.0.0:25", "--tls-listen", "[::]:465", "--lmtp-listen", "mx.example.com:24"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def files(folder: Path) -> Path:
    """Leave a certificate with its key, and a password file, in the folder."""
    issued = trustme.CA().issue_cert("mx.example.com")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "users").touch(mode=0o600)
    return folder


def parsed(*argv: str) -> Options:
    """Give the options of ``serve`` with these arguments more."""
    return parse_arguments([*SERVE, *argv])


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str], status: int = 2) -> str:
    """Give the one line that a command has to say before it does anything, a queue included."""
    before = {path.name for path in Path().iterdir()}
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("smtprecv serve: ")
    assert err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == before
    return err.removeprefix("smtprecv serve: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["serve", *GIVEN], "mail must come from somewhere: --listen or --tls-listen or --lmtp-listen or --stdio"),
        ([*SERVE, "--stdio"], "--listen 127.0.0.1:0 does not go together with --stdio"),
        (["serve", *GIVEN, "--stdio", "--lmtp-listen", "unix:/s"], "--lmtp-listen unix:/s does not go together"),
        ([*SERVE, "--listen", "systemd", "--lmtp-listen", "systemd:lmtp"], "tell them apart by systemd:NAME"),
        ([*SERVE, "--listen", "systemd:a", "--lmtp-listen", "systemd:a"], "a socket that was passed is listened on"),
        ([*SERVE, "--listen", "fd:3", "--tls-listen", "fd:3", *TLS], "a socket that was passed is listened on once"),
        ([*SERVE, "--tls-cert", "cert.pem"], "--tls-cert needs --tls-key"),
        ([*SERVE, "--tls-key", "key.pem"], "--tls-key needs --tls-cert"),
        ([*SERVE, "--tls-listen", "127.0.0.1:0"], "--tls-listen needs --tls-cert"),
        ([*SERVE, "--require-tls"], "--require-tls needs --tls-cert"),
        ([*SERVE, *USERS], "--auth-file needs --tls-cert or --auth-without-tls"),
        ([*SERVE, "--auth-without-tls"], "--auth-without-tls needs --auth-file"),
        ([*SERVE, "--require-auth"], "--require-auth needs --auth-file"),
        ([*SERVE, "--lmtp-direct"], "--lmtp-direct needs --lmtp-listen"),
        (
            ["serve", "--queue", "q", "--lmtp-listen", "unix:/s", "--lmtp-direct", "--no-runqueue"],
            "--lmtp-direct needs --deliver",
        ),
        (
            [*SERVE, "--proxy-from", "127.0.0.1"],
            "--proxy-from needs --accept-domain or --accept-any or --require-auth",
        ),
        (["serve", *GIVEN, "--workers", "2", "--stdio"], "--stdio does not go together with --workers"),
        ([*SERVE, "--workers", "2", "--messages", "1"], "--messages does not go together with --workers"),
        ([*SERVE, "--workers", "2", "--tls-cert", "cert.pem"], "--tls-cert needs --tls-key"),
        ([*SERVE, "--workers", "2", "--listen", "0.0.0.0:0"], "--listen 0.0.0.0:0 is not loopback"),
        ([*SERVE, "--retry-first", "5h"], "--retry-max"),
        ([*SERVE, "--destination-pause", "1h"], "--destination-pause-max"),
        ([*SERVE, "--retry-first", "0s"], "--retry-first"),
        (["serve", "--listen", "127.0.0.1:0", "--queue", "q"], "--deliver is needed to run the queue"),
        ([*SERVE, "--accept-any", "--listen", "a..b:25"], "'a..b' is not a host name"),
        ([*SERVE, "--listen", "0.0.0.0:0"], "--listen 0.0.0.0:0 is not loopback: say what to take, by --accept-domain"),
        ([*SERVE, "--listen", "[::]:0"], "--listen [::]:0 is not loopback"),
        ([*SERVE, "--listen", "mx.example.com:0"], "--listen mx.example.com:0 is not loopback"),
        ([*SERVE, "--tls-listen", "0.0.0.0:0", *TLS], "--tls-listen 0.0.0.0:0 is not loopback"),
        ([*SERVE, "--tls-listen", "0.0.0.0:0", *TLS, *USERS], "--tls-listen 0.0.0.0:0 is not loopback"),
        ([*SERVE, "--lmtp-listen", "0.0.0.0:0"], "--lmtp-listen 0.0.0.0:0 is not loopback"),
    ],
)
def test_not_together(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that do not go together are as wrong as those that cannot be read; no queue is made for them."""
    assert text in refusal(capsys, argv)


@pytest.mark.parametrize(
    "argv",
    [
        [*TLS, "--require-tls", "--tls-listen", "127.0.0.1:0"],
        [*USERS, "--auth-without-tls", "--require-auth"],
        [*TLS, *USERS, "--auth-without-tls"],
        ["--lmtp-listen", "unix:/s", "--lmtp-direct"],
        ["--listen", "systemd:smtp", "--lmtp-listen", "systemd:lmtp", "--listen", "fd:3"],
        ["--proxy-from", "127.0.0.1", "--accept-domain", "example.com"],
        ["--xclient-from", "127.0.0.1"],
        ["--workers", "1", "--messages", "1"],
        [*WORLD, *TLS, "--accept-any"],
        [*WORLD, *TLS, "--accept-domain", "example.com"],
        [*WORLD, *TLS, *USERS, "--require-auth"],
    ],
)
def test_together(argv: list[str]) -> None:
    """Who says what is needed gets it; who says what to take may listen to the world."""
    _receiver.refuse_contradictions(parsed(*argv))


def test_loopback() -> None:
    """The name localhost always means loopback, as no other does (RFC 6761 section 6.3)."""
    hosts = ["127.0.0.1", "::1", "localhost", "mx.example.com", "0.0.0.0", "::"]
    assert [host for host in hosts if _receiver._is_loopback(host)] == hosts[:3]


def no_certificate(folder: Path) -> None:
    """Let the certificate be missing."""
    (folder / "cert.pem").unlink()


def no_pem(folder: Path) -> None:
    """Let the certificate be none."""
    (folder / "cert.pem").write_text("nothing\n")


def another_key(folder: Path) -> None:
    """Let the key be that of another certificate."""
    trustme.CA().issue_cert("mx.example.com").private_key_pem.write_to_path(folder / "key.pem")


_LOCKED_KEY = """\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF

AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END EC PRIVATE KEY-----
"""


def locked_key(folder: Path) -> None:
    """Let the key want a password."""
    (folder / "key.pem").write_text(_LOCKED_KEY)


def no_users(folder: Path) -> None:
    """Let the password file be missing."""
    (folder / "users").unlink()


def no_line(folder: Path) -> None:
    """Let the password file have a line that is none."""
    (folder / "users").write_text("anna:secret\n")


@pytest.mark.parametrize(
    ("spoil", "status", "text"),
    [
        (no_certificate, 2, "no TLS with cert.pem and key.pem: cert.pem: No such file or directory"),
        (no_pem, 2, "no TLS with cert.pem and key.pem: "),
        (another_key, 2, "no TLS with cert.pem and key.pem: "),
        (locked_key, 2, "no TLS with cert.pem and key.pem: the key needs a password"),
        (no_users, 1, "users: No such file or directory"),
        (no_line, 2, "users"),
    ],
)
def test_unusable_files(
    files: Path, spoil: Callable[[Path], None], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be used is one line that names it, before anything is opened or made."""
    spoil(files)
    said = refusal(capsys, [*SERVE, *TLS, *USERS], status)
    assert text in said
    assert "secret" not in said


def test_readable_users(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a password file that others may read the log warns, and the server starts all the same."""
    (files / "users").chmod(0o644)
    with caplog.at_level(logging.WARNING):
        _receiver.prepare_server(parsed(*TLS, *USERS), Limits())
    assert "holds password keys, and others than its owner may read" in caplog.text


@pytest.mark.parametrize(
    ("argv", "mechanisms"),
    [
        ([], ()),
        ([*USERS, "--auth-without-tls"], ("EXTERNAL", "SCRAM-SHA-256", "PLAIN", "LOGIN")),
    ],
)
async def test_auth_is_offered_to_users(files: Path, argv: list[str], mechanisms: tuple[str, ...]) -> None:
    """There is AUTH where there is a password file, and nowhere else."""
    async with open_spool(files / "q") as spool:
        server = _receiver.prepare_server(parsed(*argv), Limits())(spool)
    assert server._fill(Role()).config.auth == mechanisms


async def test_settings(files: Path) -> None:
    """What is demanded, and who is believed, comes to the server as it was said."""
    argv = [*TLS, *USERS, "--require-tls", "--require-auth", "--proxy-from", "unix", "--xclient-from", "192.0.2.1"]
    async with open_spool(files / "q") as spool:
        server = _receiver.prepare_server(parsed(*argv), Limits())(spool)
    service = server._fill(Role())
    assert (service.config.requires_tls, service.config.requires_auth, service.config.starttls) == (True, True, True)
    assert not service.config.auth_without_tls
    assert (service.proxy_from, service._xclient_from) == (Networks.of("unix"), Networks.of("192.0.2.1"))


async def test_lookups(folder: Path) -> None:
    """Clients are looked up only if that is asked for."""
    silent, asking = (_receiver.prepare_server(parsed(*argv), Limits()) for argv in ([], ["--reverse-dns", "--ident"]))
    async with open_spool(folder / "q") as spool:
        assert silent(spool)._lookups == Lookups()
        lookups = asking(spool)._lookups
    assert isinstance(lookups.host, ReverseDns)
    assert isinstance(lookups.ident, Ident)


def test_roles() -> None:
    """Each kind of address has its role: TLS from the first octet on, LMTP, and what is neither."""
    options = parsed(*TLS, "--tls-listen", "127.0.0.1:1", "--lmtp-listen", "unix:/s", "--lmtp-listen", "[::1]:24")
    plain, tls, lmtp = _receiver.roles(options)
    assert plain == (["127.0.0.1:0"], Role(), "")
    assert tls == (["127.0.0.1:1"], Role(implicit_tls=True), " (TLS)")
    assert lmtp == (["unix:/s", "[::1]:24"], Role(Config("mx.example.com", dialect=Dialect.LMTP)), " (LMTP)")


def test_direct_role() -> None:
    """With --lmtp-direct what comes by LMTP goes to the delivery, and nothing else does."""
    plain, lmtp = _receiver.roles(parsed("--lmtp-listen", "unix:/s", "--lmtp-direct"))
    assert plain[1].intake is None
    assert isinstance(lmtp[1].intake, DirectIntake)
