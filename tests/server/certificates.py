"""An authority of the tests' own, a certificate for mx.example, and what both ends of a handshake need."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("mx.example")


def server_context() -> ssl.SSLContext:
    """Give a server's context as a user makes one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which some builds of Python set
    CERTIFICATE.configure_cert(context)
    return context


def client_context(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Give the context of a client that trusts the authority, and may have a certificate itself."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def write(folder: Path, certificate: trustme.LeafCert = CERTIFICATE) -> tuple[Path, Path]:
    """Write a certificate and its key, in the place of those that are there; give their names."""
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.cert_chain_pems[0].bytes())
    paths[1].write_bytes(certificate.private_key_pem.bytes())
    return paths
