"""What is raised where a route's limit refuses, and how that is answered."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from .. import errors
from .._core import Decision
from ..errors import describe
from ..http import PROBLEM_JSON, Refusal

__all__ = ["RateLimitExceeded", "answer"]

DENIAL = "websocket.http.response"  # the ASGI extension
POLICY_VIOLATION = 1008


class RateLimitExceeded(errors.RateLimitExceeded, HTTPException):
    """A limit of a route was reached: HTTP 429, with `Retry-After` and the other headers.

    503 where no limit was reached, but the store did not decide (`on_store_error="deny"`).
    `refusal` has the body that answers it, unless the application has a handler of its own.
    """

    refusal: Refusal

    def __init__(self, decision: Decision, refusal: Refusal) -> None:
        detail = describe(decision) if refusal.status == 429 else refusal.problem["title"]
        errors.RateLimitExceeded.__init__(self, decision, detail)
        self.status_code = refusal.status
        self.detail = detail
        self.headers = refusal.headers
        self.refusal = refusal

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.decision, self.refusal)


async def answer(connection: Any, error: Any) -> Response | None:
    """The problem of a refusal. A handshake is denied with it where the server can (the Denial
    Response extension), and else closed, which a client sees as 403."""
    refusal: Refusal = error.refusal
    response = Response(
        refusal.body, refusal.status, headers=error.headers, media_type=PROBLEM_JSON
    )
    if isinstance(connection, Request):
        return response
    websocket: WebSocket = connection
    extensions = websocket.scope.get("extensions") or {}
    if DENIAL in extensions and hasattr(websocket, "send_denial_response"):
        await websocket.send_denial_response(response)
    else:
        seconds = refusal.problem["retry_after"]
        await websocket.close(POLICY_VIOLATION, f"Rate limit exceeded; retry after {seconds}")
    return None
