"""Checks that users hold their own parts to, in their own tests."""

from smtprecv.testing._delivery import Copies, OpenDelivery, check_delivery
from smtprecv.testing._dialogue import play
from smtprecv.testing._sample import OpenSpool
from smtprecv.testing._spool import check_spool

__all__ = ["Copies", "OpenDelivery", "OpenSpool", "check_delivery", "check_spool", "play"]
