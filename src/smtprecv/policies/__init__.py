"""Ready-made policies."""

from smtprecv.policies._accept import AcceptDomains

__all__ = ["AcceptDomains"]
