"""Limits on the routes of a Starlette application.

@limit("5/minute")
async def search(request): ...

app = Starlette(routes=[Route("/search", search)])
install(app, store="redis://localhost", default="100/minute")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import OnStoreError, QuotasArgument
from .http import Headers
from .identity import Key
from .routes import RateLimit, exempt, limit

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from .routes.refusing import RateLimitExceeded

__all__ = ["RateLimit", "RateLimitExceeded", "exempt", "install", "limit"]


def install(
    app: Starlette,
    *,
    store: Any = None,
    key: str | Key | None = None,
    headers: Headers | None = "ietf",
    default: QuotasArgument | RateLimit | None = None,
    jitter: float = 0.0,
    name: str = "routes",
    on_store_error: OnStoreError = "local",
    timeout: float = 0.5,
) -> None:
    """Holds the limits of an application's routes, those to come too; before it serves.

    `store`: a store or its URL; None is the memory of this process, shared with nothing. `key`:
    who is limited where a limit does not say: "ip", "user", "app", or a function of the
    connection (see `sluicegate.identity`); None is the peer's address. `headers`: "ietf", "x",
    "both" or "none"; `jitter`: see `sluicegate.http.Answers`. `default`: quotas, or a RateLimit,
    for every route without a limit of its own, each by itself; what no route is for (404, 405,
    redirects) counts together, as one more. `name` keeps applications apart that share a store.
    `on_store_error` and `timeout` (seconds) are Limiter's.

    A refusal raises RateLimitExceeded, a starlette HTTPException with status 429 and headers,
    within the application's exception handlers; without one of its own, it is answered by a
    problem (RFC 9457), and a handshake is denied.
    RuntimeError where the application serves already, or has this.
    """
    from .routes.installing import install_guard

    install_guard(
        app,
        store=store,
        key=key,
        headers=headers,
        default=default,
        jitter=jitter,
        name=name,
        on_store_error=on_store_error,
        timeout=timeout,
    )


def __getattr__(name: str) -> Any:
    if name == "RateLimitExceeded":
        from .routes.refusing import RateLimitExceeded

        return RateLimitExceeded
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
