"""Ready-made policies, and functions made into policies."""

from smtprecv.policies._accept import AcceptDomains
from smtprecv.policies._dnsbl import Dnsbl
from smtprecv.policies._function import on_connect, on_data, on_hello, on_mail, on_message, on_rcpt

__all__ = ["AcceptDomains", "Dnsbl", "on_connect", "on_data", "on_hello", "on_mail", "on_message", "on_rcpt"]
