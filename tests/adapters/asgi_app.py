"""The applications that the tests of the ASGI door talk to: one of Starlette, one of FastAPI,
with the same rules in front. A request is of the user and group that its headers name, so that
each test has users of its own; below /jwt, /ip, /session and /user it is whoever proves to be
it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from sluicegate.asgi import EmptyInformation, RateLimitMiddleware, Rule
from sluicegate.asgi.auths import client_ip, create_jwt_auth, from_session, from_user

KEY = "the key of the test application, long enough for HS256"

RULES = {
    r"^/once/both": [Rule(minute=1, group="both")],
    r"^/once": [Rule(minute=1), Rule(group="admin"), Rule(minute=2, group="both")],
    r"^/second": [Rule(second=2)],
    r"^/units": [Rule(second=2, minute=3)],
    r"^/block": [Rule(second=1, block_time=2), Rule(group="admin")],
    r"^/zone/\d+": [Rule(minute=3, zone="zone")],
    r"^/zone": [Rule(minute=3, zone="zone", method="POST")],
    r"^/": [Rule(minute=50), Rule(group="admin")],
}
SECRETS = {r".*": [Rule(minute=3), Rule(minute=1, group="small")]}


async def who(scope: Any) -> tuple[str, str]:
    named = {name: value.decode("latin-1") for name, value in scope["headers"]}
    if b"user" not in named:
        raise EmptyInformation(scope)
    return named[b"user"], named.get(b"group", "default")


async def unauthorized(error: Exception) -> Any:
    return JSONResponse({"error": type(error).__name__}, 401)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def log_in(request: Request) -> PlainTextResponse:
    request.session.update(request.query_params)
    return PlainTextResponse("hello")


class ByPassword(AuthenticationBackend):
    """Knows who says that the password is "open sesame"."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name, _, password = conn.headers.get("x-login", "").partition(":")
        return (AuthCredentials(), SimpleUser(name)) if password == "open sesame" else None


def guarded(name: str, authenticate: Any, *outside: Middleware) -> Mount:
    app = Starlette(routes=[Route("/{path:path}", hello)])
    app.add_middleware(
        RateLimitMiddleware,
        authenticate=authenticate,
        config=SECRETS,
        on_auth_error=unauthorized,
    )
    for one in outside:
        app.add_middleware(one.cls, **one.kwargs)
    return Mount(name, app)


open_doors = Starlette(routes=[Route("/{path:path}", hello, methods=["GET", "POST"])])
open_doors.add_middleware(RateLimitMiddleware, authenticate=who, config=RULES)

starlette = Starlette(
    routes=[
        guarded("/jwt", create_jwt_auth(KEY, ["HS256"], query_param="token", cookie="token")),
        guarded("/ip", client_ip),
        guarded("/session", from_session),
        guarded("/user", from_user(), Middleware(AuthenticationMiddleware, backend=ByPassword())),
        Route("/log-in", log_in),
        Mount("/", open_doors),
    ]
)
starlette.add_middleware(SessionMiddleware, secret_key=KEY)

fastapi = FastAPI()
fastapi.add_middleware(RateLimitMiddleware, authenticate=who, config=RULES)


@fastapi.api_route("/{path:path}", methods=["GET", "POST"], response_class=PlainTextResponse)
async def any_path(path: str) -> str:
    return "hello"
