"""A report as Python's `email` reads it: whom it tells of, in which words."""

from __future__ import annotations

import email
import email.policy
from email.headerregistry import BaseHeader
from email.message import EmailMessage, Message


def parsed(octets: bytes) -> EmailMessage[BaseHeader, object]:
    """Read a message; no part of it has a defect."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert [defect for part in message.walk() for defect in part.defects] == []
    return message


def told(octets: bytes) -> list[tuple[str, str, str]]:
    """Give the recipient, the action and the status of each recipient in a report."""
    report = email.message_from_bytes(octets)
    [status] = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    groups = status.get_payload()
    assert isinstance(groups, list)
    fields = [each for each in groups[1:] if isinstance(each, Message)]
    return [(str(each["Final-Recipient"]), str(each["Action"]), str(each["Status"])) for each in fields]
