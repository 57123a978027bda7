"""The middleware, by the name of the module that an application has it in."""

from ..middleware import RateLimitMiddleware

__all__ = ["RateLimitMiddleware"]
