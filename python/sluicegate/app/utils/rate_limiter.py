"""The limiters, by the name of the module that an application has them in."""

from ..connections import ConnectionLimiter
from ..rate import RateLimiter

__all__ = ["ConnectionLimiter", "RateLimiter"]
