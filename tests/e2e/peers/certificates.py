"""Certificates for a test, from an authority that nobody else trusts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import trustme


@final
@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, each a file in PEM."""

    chain: Path
    key: Path


class Authority:
    """An authority whose own certificate is in `file`, for who shall trust it."""

    def __init__(self, folder: Path) -> None:
        """Make one, which leaves its files in a folder."""
        self._folder: Final = folder
        self._authority: Final = trustme.CA()
        self.file: Final = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    @property
    def context(self) -> ssl.SSLContext:
        """The settings of a client in Python that trusts nobody else."""
        return ssl.create_default_context(cafile=self.file)

    def issue(self, name: str, *others: str) -> Certificate:
        """Give a certificate for these identities: host names, IP addresses or mail addresses.

        The first names the files: issued once more, a certificate replaces the one before.
        """
        issued = self._authority.issue_cert(name, *others, common_name=name)
        certificate = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        issued.private_key_pem.write_to_path(certificate.key)
        certificate.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return certificate


def serving(certificate: Certificate) -> list[str]:
    """Give the options of `smtprecv serve` with a certificate."""
    return ["--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key)]
