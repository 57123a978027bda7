"""The door of Quart, with the names of quart-rate-limiter.

    RateLimiter(app)                            # then, on routes and on websocket routes:

    @app.route("/")
    @rate_limit(5, timedelta(seconds=10))
    async def index(): ...

    ratelimit = WebSocketRateLimiter(times=30, minutes=1)       # messages, in a handler
    await ratelimit(websocket, context_key="chat")

The limits are the core's, over any store. `redis_store` and `valkey_store` are modules of
their own, and `store` has what a store of your own derives from.
"""

from __future__ import annotations

try:
    import quart as _quart  # noqa: F401
except ImportError as error:
    raise ImportError('sluicegate.quart needs Quart: pip install "sluicegate[quart]"') from error

from .errors import RateLimitExceeded, WebSocketRateLimitException
from .keys import remote_addr_key
from .limiter import RateLimiter
from .limits import RateLimit, limit_blueprint, rate_exempt, rate_limit
from .store import MemoryStore, RateLimiterStoreABC
from .websocket import WebSocketRateLimiter

__all__ = [
    "MemoryStore",
    "RateLimit",
    "RateLimitExceeded",
    "RateLimiter",
    "RateLimiterStoreABC",
    "WebSocketRateLimitException",
    "WebSocketRateLimiter",
    "limit_blueprint",
    "rate_exempt",
    "rate_limit",
    "remote_addr_key",
]
