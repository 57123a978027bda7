"""A connection that was refused."""

from __future__ import annotations

from ..errors import RateLimitExceeded

__all__ = ["ConnectionRefused"]


class ConnectionRefused(RateLimitExceeded):
    """The limits refused a connection. The handshake has been answered: there is nothing left
    to do but to return."""
