"""Ready-made policies, and functions made into policies."""

from smtprecv.policies._accept import AcceptDomains
from smtprecv.policies._dnsbl import Dnsbl
from smtprecv.policies._function import (
    on_authenticate,
    on_connect,
    on_data,
    on_hello,
    on_mail,
    on_message,
    on_rcpt,
)
from smtprecv.policies._password_file import PasswordFile
from smtprecv.policies._password_lines import read_keys, read_user, with_keys, without_user

__all__ = [
    "AcceptDomains",
    "Dnsbl",
    "PasswordFile",
    "on_authenticate",
    "on_connect",
    "on_data",
    "on_hello",
    "on_mail",
    "on_message",
    "on_rcpt",
    "read_keys",
    "read_user",
    "with_keys",
    "without_user",
]
