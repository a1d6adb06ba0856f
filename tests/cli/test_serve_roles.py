"""``smtprecv serve`` with TLS, AUTH and LMTP: several listeners of one process, each in its role."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from tests.server.test_inherited import LAUNCHER

from smtprecv.policies import with_keys
from smtprecv.sasl import ScramKeys

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

TIMEOUT = 60
MAIL = (
    b"LHLO x.example\r\nMAIL FROM:<alice@example.net>\r\nRCPT TO:<ben@example.com>\r\nRCPT TO:<carla@example.com>\r\n"
)
ANNA = ("anna@example.com", "secret")
TLS = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"]
USERS = ["--auth-file", "users"]


class Running:
    """A server in a process of its own, and the addresses that its log names, in order."""

    def __init__(self, process: subprocess.Popen[str], listeners: int) -> None:
        """Wait until it listens."""
        self.process = process
        lines = [self.await_log("listening on ") for _ in range(listeners)]
        self.addresses = [line.split("listening on ")[1].split()[0] for line in lines]
        self.remarks = [line.rpartition(" ")[2] for line in lines]

    def await_log(self, text: str) -> str:
        """Read the log up to a line with this text, and give that."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return line.removesuffix("\n")
        pytest.fail(f"the log ended without {text!r}")

    def port(self, place: int) -> int:
        """Give the port of the listener at this place."""
        return int(self.addresses[place].rpartition(":")[2])

    def stop(self) -> str:
        """End it in good order, and give the rest of its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 0, log
        return log


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Leave a certificate and a password file in a folder, work there, and give what a client trusts."""
    monkeypatch.chdir(tmp_path)
    keys = ScramKeys.derive(ANNA[1], salt=b"salt", iterations=4096)
    users = with_keys(b"", ANNA[0], keys)
    Path("users").write_bytes(users)
    Path("users").chmod(0o600)
    return renewed()


def renewed() -> ssl.SSLContext:
    """Put a new certificate of a new authority in place, and give what trusts that authority alone."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path("key.pem")
    issued.cert_chain_pems[0].write_to_path("cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def serving(*arguments: str, listeners: int, launch: Sequence[str] = (), fds: Sequence[int] = ()) -> Iterator[Running]:
    """Run a server; what still runs at the end is killed."""
    command = [
        sys.executable,
        *(launch or ()),
        "-m",
        "smtprecv",
        "serve",
        "--queue",
        "q",
        "--hostname",
        "mx.example.com",
    ]
    process = subprocess.Popen(
        [*command, "--deliver", "maildir:m", *arguments], stderr=subprocess.PIPE, text=True, pass_fds=fds
    )
    with process:
        try:
            yield Running(process, listeners)
        finally:
            process.kill()


def relay(client: smtplib.SMTP) -> int:
    """Try to send to somebody elsewhere, and give the code of the answer to RCPT."""
    client.mail(ANNA[0])
    code, _ = client.rcpt("eve@example.org")
    client.rset()
    return code


def test_users_over_tls(trust: ssl.SSLContext) -> None:
    """AUTH is offered inside TLS only, at either kind of listener; a user may send to anybody, nobody else may."""
    listen = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]
    with serving(*listen, *TLS, *USERS, "--accept-domain", "example.com", listeners=2) as server:
        assert server.remarks[1] == "(TLS)"
        with smtplib.SMTP("127.0.0.1", server.port(0), timeout=TIMEOUT) as client:
            client.ehlo()
            assert (client.has_extn("starttls"), client.has_extn("auth")) == (True, False)
            client.starttls(context=trust)
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
            assert relay(client) == 550
            client.login(*ANNA)
            assert relay(client) == 250
        with smtplib.SMTP_SSL("127.0.0.1", server.port(1), timeout=TIMEOUT, context=trust) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login(ANNA[0], "wrong")
            client.login(*ANNA)
            client.sendmail(ANNA[0], ["ben@example.net"], "Subject: x\r\n\r\nhello\r\n")
        server.await_log("delivered")
        log = server.stop()
    assert "Traceback" not in log
    [path] = Path("m/new").iterdir()
    assert " with ESMTPSA" in path.read_text()


def test_renewal(trust: ssl.SSLContext) -> None:
    """A certificate and users that are replaced hold for the next client, without a restart."""
    with serving("--tls-listen", "127.0.0.1:0", *TLS, *USERS, listeners=1) as server:
        with smtplib.SMTP_SSL("127.0.0.1", server.port(0), timeout=TIMEOUT, context=trust) as client:
            client.login(*ANNA)
        newer = renewed()
        Path("users").write_bytes(b"")
        with pytest.raises(ssl.SSLError):
            # At most once a second it is looked whether they have changed.
            for _ in range(5000):
                with smtplib.SMTP_SSL("127.0.0.1", server.port(0), timeout=TIMEOUT, context=trust) as client:
                    client.noop()
        with (
            smtplib.SMTP_SSL("127.0.0.1", server.port(0), timeout=TIMEOUT, context=newer) as client,
            pytest.raises(smtplib.SMTPAuthenticationError),
        ):
            client.login(*ANNA)
        server.stop()


def test_demands(trust: ssl.SSLContext) -> None:
    """--require-tls and --require-auth take mail from users inside TLS, and from nobody else."""
    demands = ["--require-tls", "--require-auth"]
    with serving("--listen", "127.0.0.1:0", *TLS, *USERS, *demands, listeners=1) as server:
        with smtplib.SMTP("127.0.0.1", server.port(0), timeout=TIMEOUT) as client:
            client.ehlo()
            assert client.mail(ANNA[0])[0] == 530
            client.starttls(context=trust)
            client.ehlo()
            assert client.mail(ANNA[0])[0] == 530
            client.login(*ANNA)
            assert relay(client) == 250
        server.stop()


def test_auth_in_clear(trust: ssl.SSLContext) -> None:
    """--auth-without-tls is AUTH without a certificate."""
    with serving("--listen", "127.0.0.1:0", *USERS, "--auth-without-tls", listeners=1) as server:
        with smtplib.SMTP("127.0.0.1", server.port(0), timeout=TIMEOUT) as client:
            client.login(*ANNA)
        server.stop()


def lmtp(path: str) -> list[bytes]:
    """Send a message for two by LMTP over a Unix socket; give the last line of each reply."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(path)
        client.sendall(MAIL + b"DATA\r\nhello\r\n.\r\nQUIT\r\n")
        with client.makefile("rb") as lines:
            return [line for line in lines if line[3:4] == b" "]


def test_lmtp(trust: ssl.SSLContext) -> None:
    """LMTP over a Unix socket has a reply for each recipient; the file of the socket goes with the server."""
    with serving("--lmtp-listen", f"unix:{Path.cwd()}/s,mode=660", listeners=1) as server:
        assert server.remarks == ["(LMTP)"]
        assert Path("s").stat().st_mode & 0o777 == 0o660
        replies = lmtp("s")
        assert [reply[:3] for reply in replies] == [
            b"220",
            b"250",
            b"250",
            b"250",
            b"250",
            b"354",
            b"250",
            b"250",
            b"221",
        ]
        assert all(b"queued as" in reply for reply in replies[6:8])
        server.await_log("carla@example.com> delivered")
        server.stop()
    assert not Path("s").exists()


def test_lmtp_direct(trust: ssl.SSLContext) -> None:
    """With --lmtp-direct the client hears what the delivery said, and the queue stays out of it."""
    arguments = ["--lmtp-listen", f"unix:{Path.cwd()}/s", "--lmtp-direct", "--no-runqueue"]
    with serving(*arguments, listeners=1) as server:
        replies = lmtp("s")
        assert replies[6:8] == [b"250 2.0.0 delivered\r\n"] * 2
        assert len(list(Path("m/new").iterdir())) == 2
        server.stop()


def test_systemd(trust: ssl.SSLContext) -> None:
    """The sockets of a socket unit are told apart by name, and each gets its role."""
    with (
        socket.create_server(("127.0.0.1", 0)) as smtp,
        socket.create_server(("127.0.0.1", 0)) as submissions,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind("s")
        local.listen()
        fds = [smtp.fileno(), submissions.fileno(), local.fileno()]
        names = "smtp:submissions:lmtp"
        launch = ["-c", LAUNCHER, ",".join(map(str, fds)), names]
        arguments = ["--listen", "systemd:smtp", "--tls-listen", "systemd:submissions", "--lmtp-listen", "systemd:lmtp"]
        with serving(*arguments, *TLS, listeners=3, launch=launch, fds=fds) as server:
            assert server.addresses == [*(f"127.0.0.1:{each.getsockname()[1]}" for each in (smtp, submissions)), "s"]
            with smtplib.SMTP("127.0.0.1", server.port(0), timeout=TIMEOUT) as plain:
                assert plain.ehlo()[0] == 250
            with smtplib.SMTP_SSL("127.0.0.1", server.port(1), timeout=TIMEOUT, context=trust) as tls:
                assert tls.ehlo()[0] == 250
            assert lmtp("s")[1].startswith(b"250")
            server.stop()


def test_no_systemd(trust: ssl.SSLContext, capfd: pytest.CaptureFixture[str]) -> None:
    """Without systemd there are no sockets of it: status 1, one line, and no queue."""
    command = [sys.executable, "-m", "smtprecv", "serve", "--queue", "q", "--deliver", "maildir:m"]
    ended = subprocess.run([*command, "--listen", "systemd:smtp"], check=False, timeout=TIMEOUT)
    said = capfd.readouterr().err
    assert ended.returncode == 1
    assert said.startswith("smtprecv serve: cannot listen on systemd:smtp: the service manager has passed no socket")
    assert said.count("\n") == 1
    assert not Path("q").exists()


def test_a_drain_ends_all(trust: ssl.SSLContext) -> None:
    """SIGTERM ends the sessions of every listener with 421, those inside TLS too."""
    arguments = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--lmtp-listen", f"unix:{Path.cwd()}/s"]
    with serving(*arguments, *TLS, listeners=3) as server:
        with (
            socket.create_connection(("127.0.0.1", server.port(0)), TIMEOUT) as plain,
            socket.create_connection(("127.0.0.1", server.port(1)), TIMEOUT) as beneath,
            trust.wrap_socket(beneath, server_hostname="127.0.0.1") as tls,
            socket.socket(socket.AF_UNIX) as local,
        ):
            local.settimeout(TIMEOUT)
            local.connect("s")
            clients = [each.makefile("rb") for each in (plain, tls, local)]
            assert [client.readline()[:3] for client in clients] == [b"220"] * 3
            os.kill(server.process.pid, signal.SIGTERM)
            assert [client.readline()[:3] for client in clients] == [b"421"] * 3
            for client in clients:
                client.close()
        assert server.process.wait(TIMEOUT) == 0


def test_messages_of_all_listeners(trust: ssl.SSLContext) -> None:
    """--messages counts those of every listener together."""
    arguments = ["--listen", "127.0.0.1:0", "--lmtp-listen", f"unix:{Path.cwd()}/s", "--messages", "2"]
    with serving(*arguments, listeners=2) as server:
        lmtp("s")
        with smtplib.SMTP("127.0.0.1", server.port(0), timeout=TIMEOUT) as client:
            client.sendmail(ANNA[0], ["ben@example.com"], "Subject: x\r\n\r\nhello\r\n")
        assert server.process.wait(TIMEOUT) == 0
    assert len(list(Path("m/new").iterdir())) == 3


def test_proxy_and_xclient(trust: ssl.SSLContext) -> None:
    """Who is a proxy says for whom it speaks, and who may say by XCLIENT who it is is offered that."""
    arguments = [
        "--listen",
        "127.0.0.1:0",
        "--accept-any",
        "--proxy-from",
        "127.0.0.0/8",
        "--xclient-from",
        "192.0.2.7",
    ]
    with serving(*arguments, listeners=1) as server:
        with socket.create_connection(("127.0.0.1", server.port(0)), TIMEOUT) as client:
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.25 50000 25\r\nEHLO x.example\r\nXCLIENT ADDR=192.0.2.9\r\n")
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as lines:
                heard = lines.read()
        assert re.search(rb"^250-XCLIENT ", heard, re.MULTILINE)
        server.await_log("192.0.2.7 is now 192.0.2.9")
        server.stop()
