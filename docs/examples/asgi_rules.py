"""Rules by path, user and group in front of an ASGI application.

    pip install "sluicegate[jwt]" starlette uvicorn
    TOKEN_KEY="$(openssl rand -hex 32)" uvicorn asgi_rules:app

Who sends a token is its user, of the group that it names; everybody else is a guest, and counted
by address. A token that is no good is told so, and is nobody's.
"""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sluicegate.asgi import EmptyInformation, RateLimitMiddleware, Rule
from sluicegate.asgi.auths.jwt import create_jwt_auth

by_token = create_jwt_auth(
    os.environ["TOKEN_KEY"], ["HS256"], user_key="sub", query_param="token", leeway=5
)


async def who(scope: Any) -> tuple[str, str]:
    try:
        return await by_token(scope)
    except EmptyInformation:  # no token at all
        return f"address {scope['client'][0]}", "guest"


def slow_down(retry_after: int) -> JSONResponse:
    return JSONResponse(
        {"error": "too many requests", "retry_after": retry_after},
        status_code=429,
        headers={"Retry-After": str(retry_after)},
    )


async def search(request: Request) -> JSONResponse:
    return JSONResponse({"found": [request.query_params.get("q", "")]})


async def report(request: Request) -> JSONResponse:
    return JSONResponse({"report": request.path_params["number"]})


async def log_in(request: Request) -> JSONResponse:
    return JSONResponse({"error": "wrong password"}, status_code=403)


app = Starlette(
    routes=[
        Route("/search", search),
        Route("/reports/{number:int}", report),
        Route("/login", log_in, methods=["POST"]),
    ]
)
app.add_middleware(
    RateLimitMiddleware,
    authenticate=who,
    # the memory of this process; over several, "shm:///run/app" or "redis://localhost"
    backend=os.environ.get("LIMITS_STORE", "memory://"),
    config={
        r"^/search": [
            Rule(second=2, minute=5, group="guest"),
            Rule(second=10, minute=300),
            Rule(group="staff"),
        ],
        # one pool for all reports, whatever their number
        r"^/reports/\d+": [
            Rule(minute=3, group="guest", zone="reports"),
            Rule(minute=60, zone="reports"),
            Rule(group="staff"),
        ],
        # who guesses passwords is shut out of all the above, too
        r"^/login": [Rule(minute=5, group="guest", method="POST", block_time=300)],
    },
    on_auth_error=JSONResponse({"error": "this token is no good"}, status_code=401),
    on_blocked=slow_down,
)
