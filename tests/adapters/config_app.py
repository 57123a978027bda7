"""An application under the rules of the file $TEST_RULES, counted in $TEST_STORE."""

from __future__ import annotations

import os

from fastapi import FastAPI

from sluicegate.asgi import RateLimitMiddleware

app = FastAPI()


@app.get("/{path:path}")
async def anything(path: str) -> str:
    return path


app.add_middleware(
    RateLimitMiddleware.from_config,
    os.environ["TEST_RULES"],
    reload="100ms",
    backend=os.environ["TEST_STORE"],
    authenticate=lambda scope: (scope["query_string"].decode() or "nobody", "default"),
)
