"""The settings of the core refuse what the RFC forbids."""

from __future__ import annotations

import pytest

from smtprecv.protocol import Config


@pytest.mark.parametrize(
    "hostname", ["", "mx example", "mx.example.com.", "mx_1.example", "[192.0.2]", "bücher.example"]
)
def test_a_hostname_is_a_domain_or_an_address_literal(hostname: str) -> None:
    """A name that could not stand in a greeting is refused (RFC 5321 section 4.1.2)."""
    with pytest.raises(ValueError, match=r"domain|literal|A-labels"):
        Config(hostname)


def test_limits() -> None:
    """No limit may be lower than the RFC's (RFC 5321 sections 4.5.3.1, 4.5.3.1.7 and 4.5.3.1.8)."""
    Config("[192.0.2.1]", max_message_size=65536, max_recipients=100, max_hops=1)
    with pytest.raises(ValueError, match="max_message_size"):
        Config("mx.example.com", max_message_size=65535)
    with pytest.raises(ValueError, match="max_recipients"):
        Config("mx.example.com", max_recipients=99)
    with pytest.raises(ValueError, match="max_hops"):
        Config("mx.example.com", max_hops=0)
    with pytest.raises(ValueError, match="max_transactions"):
        Config("mx.example.com", max_transactions=0)
    Config("mx.example.com", max_transactions=1)


@pytest.mark.parametrize("mechanism", ["", "plain", "PLAIN LOGIN", "X" * 21])
def test_a_mechanism_is_named_as_it_is_announced(mechanism: str) -> None:
    """What could not stand in the answer to EHLO, or never be asked for, is refused (RFC 4422 section 3.1)."""
    Config("mx.example.com", auth=("PLAIN", "SCRAM-SHA-256"))
    with pytest.raises(ValueError, match="auth"):
        Config("mx.example.com", auth=("PLAIN", mechanism))
