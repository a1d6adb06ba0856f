"""AUTH with other people's clients: right and wrong passwords, inside TLS and in clear."""

from __future__ import annotations

import asyncio
import re
import smtplib
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiosmtplib
import pytest
from tests.e2e.messages import MESSAGES
from tests.e2e.peers import clients
from tests.e2e.peers.certificates import Authority, Certificate, serving
from tests.e2e.peers.clients import ANNA
from tests.e2e.peers.postfix import Postfix
from tests.e2e.served import COMMAND, Served
from tests.e2e.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECRET: Final = "open-sesame"  # noqa: S105  # that of the tests
ABROAD: Final = "ben@abroad.example"
"""A recipient whom only users may send to."""
USERS: Final = [ANNA, "jörg"]


def make_users(file: Path) -> list[str]:
    """Write a password file with the command, and give the options of a server that reads it."""
    for user in USERS:
        command = [*COMMAND, "passwd", str(file), user]
        subprocess.run(command, input=f"{SECRET}\n", text=True, check=True, timeout=30)
    return ["--auth-file", str(file), "--accept-domain", "example.org"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Served]:
    """Give a server with users, who alone may send to other domains, and inside TLS alone."""
    folder = tmp_path_factory.mktemp("guarded")
    options = [*serving(certificate), "--tls-listen", "127.0.0.1:0", *make_users(folder / "users")]
    with Served(folder, *options, deliver="Maildir/{local_part}") as server:
        yield server


def as_user(password: str = SECRET, mechanism: str = "PLAIN", user: str = ANNA) -> list[str]:
    """Give the options of swaks for AUTH."""
    return ["--auth", mechanism, "--auth-user", user, "--auth-password", password]


def the_one(served: Served, local_part: str) -> str:
    """Give the text of the only message in a Maildir, its fields unfolded."""
    (file,) = served.await_files(1, f"{local_part}/new")
    return file.read_text().replace("\n\t", " ")


@pytest.mark.parametrize("option", ["--tls", "--tls-on-connect"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(guarded: Served, mechanism: str, option: str) -> None:
    """A user may send to anybody, Received says ESMTPSA (RFC 3848) and not who it was."""
    address = guarded.address if option == "--tls" else guarded.listener("TLS")
    local_part = f"swaks.{mechanism}{option}".lower()
    sent = clients.swaks(address, f"{local_part}@abroad.example", option, *as_user(mechanism=mechanism))
    assert sent.returncode == 0, sent.stdout
    text = the_one(guarded, local_part)
    assert " with ESMTPSA (TLS" in text
    assert SECRET not in guarded.log
    guarded.await_log(f": authenticated as '{ANNA}'")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("user", "password"), [(ANNA, "wrong"), ("nobody", SECRET)])
def test_swaks_with_a_wrong_password(guarded: Served, mechanism: str, user: str, password: str) -> None:
    """Whether the password is wrong or there is no such user, the answer is the same 535, and nothing is sent."""
    sent = clients.swaks(guarded.address, ABROAD, "--tls", *as_user(password, mechanism, user))
    assert sent.returncode == 28  # swaks: no authentication
    assert "<~* 535 5.7.8 Authentication credentials invalid\n" in sent.stdout
    assert "MAIL FROM" not in sent.stdout


def test_swaks_in_clear(guarded: Served) -> None:
    """In clear AUTH is not offered; who tries it all the same hears 538, and the password is not in the log."""
    sent = clients.swaks(guarded.address, ABROAD, *as_user())
    assert sent.returncode == 28
    assert sent.stderr == "*** Host did not advertise authentication\n"
    response = b64encode(f"\0{ANNA}\0{SECRET}".encode()).decode()
    with Wire(guarded) as wire:
        wire.ask("EHLO client.example.com", 250)
        assert wire.ask(f"AUTH PLAIN {response}", 538).startswith("5.7.11 ")
    assert response not in guarded.log


def test_strangers_may_not_send_abroad(guarded: Served) -> None:
    """Without AUTH other domains are refused, inside TLS too."""
    sent = clients.swaks(guarded.address, ABROAD, "--tls")
    assert sent.returncode == 24  # swaks: no recipient was taken
    assert "<~* 550 5.7.1" in sent.stdout


def test_auth_may_be_demanded(tmp_path: Path, certificate: Certificate) -> None:
    """With --require-auth a stranger hears 530 to MAIL, in every dialect of politeness, and a user is served."""
    with Served(tmp_path, *serving(certificate), *make_users(tmp_path / "users"), "--require-auth") as served:
        sent = clients.swaks(served.address, "ben@example.org", "--tls")
        assert sent.returncode == 23  # swaks: MAIL was refused
        assert "<~* 530 5.7.0 Authentication required\n" in sent.stdout
        sent = clients.swaks(served.address, "ben@example.org", "--tls", *as_user())
        assert sent.returncode == 0, sent.stdout
        served.await_files(1)


def test_passwords_in_clear_where_that_is_wanted(tmp_path: Path) -> None:
    """With --auth-without-tls a server without a certificate takes passwords, and Received says ESMTPA."""
    with Served(tmp_path, *make_users(tmp_path / "users"), "--auth-without-tls") as served:
        sent = clients.swaks(served.address, ABROAD, *as_user())
        assert sent.returncode == 0, sent.stdout
        (file,) = served.await_files(1)
        assert " with ESMTPA\n" in file.read_text()


def test_smtplib(guarded: Served, authority: Authority) -> None:
    """Python's own client logs in after STARTTLS, by what it likes best, and a wrong password raises its exception."""
    with smtplib.SMTP(guarded.host, guarded.port, "client.example.com", timeout=30) as client:
        client.starttls(context=authority.context)
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login(ANNA, "wrong")
        assert refused.value.smtp_code == 535
        assert client.login(ANNA, SECRET)[0] == 235
        assert client.login(ANNA, SECRET)[0] == 503
        assert client.sendmail(ANNA, ["smtplib@abroad.example"], b"hello\r\n") == {}
    assert " with ESMTPSA (TLS" in the_one(guarded, "smtplib")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_aiosmtplib(guarded: Served, authority: Authority, tls: str) -> None:
    """The asyncio client logs in inside TLS, both ways, under a name that is not ASCII too."""
    address = guarded.listener("TLS") if tls == "implicit" else guarded.address

    async def send() -> None:
        async with clients.aiosmtp(address, authority.context, starttls=tls == "starttls") as client:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError):
                await client.login("jörg", "wrong")
            await client.login("jörg", SECRET)
            await client.sendmail(ANNA, [f"aio.{tls}@abroad.example"], b"hello\r\n")

    asyncio.run(send())
    assert " with ESMTPSA (TLS" in the_one(guarded, f"aio.{tls}")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_curl(guarded: Served, authority: Authority, tmp_path: Path, mechanism: str) -> None:
    """Curl sends as a user inside TLS; with a wrong password it says that the login was denied."""
    message = tmp_path / "message"
    message.write_bytes(MESSAGES["plain"].replace(b"\n", b"\r\n"))
    options = ["--ssl-reqd", "--cacert", str(authority.file), "--login-options", f"AUTH={mechanism}"]
    to, url = f"curl.{mechanism.lower()}@abroad.example", f"smtp://{guarded.address}"
    sent = clients.curl(url, to, message, *options, "--user", f"{ANNA}:wrong")
    assert (sent.returncode, sent.stderr) == (67, "curl: (67) Login denied\n")
    sent = clients.curl(url, to, message, *options, "--user", f"{ANNA}:{SECRET}")
    assert sent.returncode == 0, sent.stderr
    assert " with ESMTPSA (TLS" in the_one(guarded, f"curl.{mechanism.lower()}")


def test_postfix(guarded: Served, authority: Authority, open_folder: Path) -> None:
    """Postfix, with Cyrus SASL, proves who it is by SCRAM-SHA-256 inside verified TLS (RFC 7677)."""
    settings = {
        "smtp_tls_security_level": "secure",
        "smtp_tls_CAfile": str(authority.file),
        "smtp_tls_secure_cert_match": "mx.example.com",
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_password_maps": f"static:{ANNA}:{SECRET}",
        "smtp_sasl_security_options": "",
        "smtp_sasl_mechanism_filter": "scram-sha-256",
    }
    with Postfix(open_folder / "postfix", f"smtp:[{guarded.host}]:{guarded.port}", settings) as postfix:
        with smtplib.SMTP(postfix.host, postfix.port) as client:
            client.sendmail(ANNA, ["postfix@abroad.example"], b"hello\r\n")
        text = the_one(guarded, "postfix")
        postfix.await_empty_queue()
    assert re.search(r"\nReceived: from relay\.example\.com \(\[127\.0\.0\.1\]\) .* with ESMTPSA \(TLS", text)


def test_postfix_with_a_wrong_password(guarded: Served, open_folder: Path) -> None:
    """A wrong proof of SCRAM is 535, after which Postfix keeps its mail."""
    settings = {
        "smtp_tls_security_level": "encrypt",
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_password_maps": f"static:{ANNA}:wrong",
        "smtp_sasl_security_options": "",
        "smtp_sasl_mechanism_filter": "scram-sha-256",
    }
    with Postfix(open_folder / "postfix", f"smtp:[{guarded.host}]:{guarded.port}", settings) as postfix:
        with smtplib.SMTP(postfix.host, postfix.port) as client:
            client.sendmail(ANNA, [ABROAD], b"hello\r\n")
        postfix.await_log("said: 535 5.7.8 Authentication credentials invalid")
        assert postfix.queued() == 1
