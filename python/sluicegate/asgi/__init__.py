"""Rules by path, user and group for any ASGI application.

    app.add_middleware(
        RateLimitMiddleware,
        authenticate=client_ip,
        backend="redis://localhost",
        config={r"^/towns": [Rule(second=10, minute=200), Rule(group="admin")]},
    )

`auths`: who it is (address, session, JSON Web Token, `scope["user"]`). `backends`: where it is
counted. `types`: the types of ASGI. The names are those of asgi-ratelimit.
"""

from __future__ import annotations

from .auths import EmptyInformation
from .backends import BaseBackend, StoreBackend
from .backends.redis import RedisBackend
from .backends.simple import MemoryBackend
from .backends.slidingredis import SlidingRedisBackend
from .dashboard import Dashboard
from .middleware import RateLimitMiddleware
from .rule import Rule

__all__ = [
    "BaseBackend",
    "Dashboard",
    "EmptyInformation",
    "MemoryBackend",
    "RateLimitMiddleware",
    "RedisBackend",
    "Rule",
    "SlidingRedisBackend",
    "StoreBackend",
]
