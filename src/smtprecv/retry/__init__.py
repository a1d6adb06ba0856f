"""When to try again. Pure: ``now`` is a parameter."""

from smtprecv.retry._backoff import Backoff, fraction
from smtprecv.retry._policy import RetryPolicy

__all__ = ["Backoff", "RetryPolicy", "fraction"]
