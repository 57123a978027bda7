"""Puts a guard into an application."""

from __future__ import annotations

from typing import Any

from .. import stores
from ..base import OnStoreError, QuotasArgument, check_name
from ..http import Answers, Headers
from ..identity import Key, address, as_key
from ..limiter import Limiter
from .finding import Finder
from .guard import Guard, Settings
from .limits import RateLimit
from .refusing import RateLimitExceeded, answer

__all__ = ["install_guard"]


def install_guard(
    app: Any,
    *,
    store: Any = None,
    key: str | Key | None = None,
    headers: Headers | None = "ietf",
    default: QuotasArgument | RateLimit | None = None,
    jitter: float = 0.0,
    name: str = "routes",
    on_store_error: OnStoreError = "local",
    timeout: float = 0.5,
    refused: type[RateLimitExceeded] = RateLimitExceeded,
) -> None:
    """See `sluicegate.starlette.install`. `refused` is what is raised."""
    router = app.router
    if isinstance(router.middleware_stack, Guard):
        raise RuntimeError("sluicegate is installed in this application already")
    if app.middleware_stack is not None:
        raise RuntimeError("install is called before the application answers its first request")
    if name is None:
        raise TypeError("a name is a str, not NoneType")
    check_name(name)
    # what is wrong with these two shows now, not at the first request
    Limiter("1/second", on_store_error=on_store_error, timeout=timeout)
    given = default if default is None or isinstance(default, RateLimit) else RateLimit(default)
    settings = Settings(
        store=stores.MemoryStore() if store is None else stores.open_store(store),
        key=address() if key is None else as_key(key),
        answers=Answers(headers, jitter),
        default=given,
        name=name,
        on_store_error=on_store_error,
        timeout=timeout,
        refused=refused,
    )
    router.middleware_stack = Guard(router.middleware_stack, Finder(router), settings)
    app.exception_handlers.setdefault(RateLimitExceeded, answer)
