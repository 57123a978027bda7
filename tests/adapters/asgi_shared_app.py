"""An application whose limits lie in the store that the environment names."""

from __future__ import annotations

import os
from typing import Any

from calling import hello
from sluicegate.asgi import RateLimitMiddleware, Rule


async def who(scope: Any) -> tuple[str, str]:
    return dict(scope["headers"])[b"user"].decode(), "default"


app = RateLimitMiddleware(
    hello,
    who,
    os.environ["TEST_STORE"],
    {"/block": [Rule(minute=1, block_time=30)], "/": [Rule(second=100, minute=10)]},
)
