"""The program that docs/operating.md prints serves three roles, each with its own rules."""

from __future__ import annotations

import re
import smtplib
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from tests.test_readme import free_port, wait_for_listener

from smtprecv.policies import with_keys
from smtprecv.sasl import ScramKeys

PAGE = (Path(__file__).parents[1] / "docs" / "operating.md").read_text()
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
TIMEOUT = 60
LETTER = "Subject: lunch\r\n\r\nat one?\r\n"


def furnish(folder: Path) -> ssl.SSLContext:
    """Leave the files that the program reads, and give what its clients trust."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "users").touch(mode=0o600)
    keys = ScramKeys.derive("secret", salt=b"salt", iterations=4096)
    (folder / "users").write_bytes(with_keys(b"", "anna", keys))
    (folder / "receive.py").write_text(PROGRAM)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.slow
@pytest.mark.e2e
def test_roles(tmp_path: Path) -> None:
    """The MX takes mail for its domain, submission takes it from users, and LMTP answers for each recipient."""
    trust = furnish(tmp_path)
    mx, submissions, relay = free_port(), free_port(), tmp_path / "lmtp"
    addresses = [f"127.0.0.1:{mx}", f"127.0.0.1:{submissions}", f"unix:{relay}"]
    with subprocess.Popen([sys.executable, "receive.py", *addresses], cwd=tmp_path, text=True) as process:
        try:
            wait_for_listener(process, mx)
            with smtplib.SMTP("127.0.0.1", mx, timeout=TIMEOUT) as client:
                client.ehlo()
                assert (client.has_extn("starttls"), client.has_extn("auth")) == (True, False)
                refused = client.sendmail("a@example.net", ["ben@example.com", "eve@example.org"], LETTER)
                assert refused["eve@example.org"][0] == 550
            wait_for_listener(process, submissions)
            with smtplib.SMTP_SSL("127.0.0.1", submissions, timeout=TIMEOUT, context=trust) as client:
                client.ehlo()
                assert client.mail("anna@example.com")[0] == 530
                client.login("anna", "secret")
                assert client.sendmail("anna@example.com", ["eve@example.org"], LETTER) == {}
            with smtplib.LMTP(str(relay)) as client:
                assert client.ehlo("relay.example.com")[0] == 250
        finally:
            process.terminate()


def test_links() -> None:
    """What the page refers to in itself is there."""
    headings = {
        re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    }
    assert {anchor for anchor in re.findall(r"\]\(#([^)]*)\)", PAGE) if anchor not in headings} == set()
