"""What is written beside an endpoint: `@limit("5/minute")`, `Depends(RateLimit("5/minute"))`,
`@exempt`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FunctionType
from typing import Any, TypeVar

from .. import _core
from ..base import QuotasArgument
from ..identity import Key, as_key
from ..quota import as_quotas

__all__ = ["VISIT", "Cost", "RateLimit", "exempt", "is_exempt", "limit", "limits_on"]

T = TypeVar("T")
# An int, or a function of the connection that returns one, plain or async.
Cost = int | Callable[[Any], Any]

VISIT = "sluicegate.routes"  # of a scope: the visit of a guarded application
_LIMITS = "_sluicegate_limits"
_OUTER = "_sluicegate_limits_above"
_EXEMPT = "_sluicegate_exempt"

# Whether the code that runs was called by an application that is guarded.
_guarded: ContextVar[bool] = ContextVar("sluicegate_guarded", default=False)


class RateLimit:
    """A limit of a route: `Depends(RateLimit("5/minute"))` in FastAPI.

    `quotas`: a rate string, a Quota, or a list of either. `key`: who is limited, "ip", "user",
    "app" or a function, plain or async, of the connection (Starlette's HTTPConnection, which is
    also a scope); None is the key of `install`. Each route counts for itself, unless `scope`
    names a pool that all routes of that name share. `cost`: units that a request takes, an int
    or a function of the connection. `count_when(status)`: whether a response of that status
    counts; a unit is held until then, so that no more requests are on their way at once than
    may count. A WebSocket's handshake counts once; its status is 101 where it is accepted.

    ValueError or TypeError for what makes no sense.
    """

    def __init__(
        self,
        quotas: QuotasArgument,
        *,
        key: str | Key | None = None,
        scope: str | None = None,
        cost: Cost = 1,
        count_when: Callable[[int], Any] | None = None,
    ) -> None:
        self.quotas = as_quotas(quotas)
        self.key = None if key is None else as_key(key)
        if scope is not None and not isinstance(scope, str):
            raise TypeError(f"scope is the name of a pool, a str, not {type(scope).__name__}")
        if scope == "":
            raise ValueError("scope is not empty; leave it out to count by route")
        if not callable(cost):
            check_cost(cost)
        if count_when is not None and not callable(count_when):
            raise TypeError(f"count_when is a function, not {type(count_when).__name__}")
        self.scope = scope
        self.cost = cost
        self.count_when = count_when
        self.__signature__ = _of_connection()  # what FastAPI is to call it with

    async def __call__(self, connection: Any) -> None:
        """Charges it; HTTPException 429, with headers, where it is refused."""
        visit = connection.scope.get(VISIT)
        if visit is None:
            raise RuntimeError(_not_installed("Depends(RateLimit(...))"))
        await visit.charge([self])

    def __repr__(self) -> str:
        return f"<RateLimit {list(self.quotas)!r}>"


def limit(
    quotas: QuotasArgument,
    *,
    key: str | Key | None = None,
    scope: str | None = None,
    cost: Cost = 1,
    count_when: Callable[[int], Any] | None = None,
) -> Callable[[T], T]:
    """Limits an endpoint, HTTP or WebSocket, plain or async: `@limit("5/minute")`, above or
    below the decorator that makes it a route. The arguments are RateLimit's. Several add up:
    all of them admit a request, or none is charged.

    The endpoint keeps its signature, and raises RuntimeError where it is called by an application
    that nothing was installed in: its limit would not hold.
    """
    given = RateLimit(quotas, key=key, scope=scope, cost=cost, count_when=count_when)

    def decorator(endpoint: T) -> T:
        if not inspect.isroutine(endpoint):
            raise TypeError(
                f"@limit is for functions, not for {endpoint!r}: give install a default= for "
                "endpoints that are classes"
            )
        found = (given, *getattr(endpoint, _LIMITS, ()))
        checked = _checked(endpoint)
        setattr(checked, _LIMITS, found)
        # It may stand above the decorator that made a route of what is below it.
        below: Any = endpoint
        while below is not None:
            with suppress(AttributeError):
                setattr(below, _OUTER, found)
            below = getattr(below, "__wrapped__", None)
        return checked  # type: ignore[no-any-return]

    return decorator


def exempt(endpoint: T) -> T:
    """No limit of `install(default=)` holds for this endpoint, nor any of its own decorators."""
    setattr(endpoint, _EXEMPT, True)
    return endpoint


def limits_on(endpoint: object) -> tuple[RateLimit, ...]:
    """The limits of a route's endpoint, from the first decorator to the last, wherever they
    stand."""
    bare = _bare(endpoint)
    found: tuple[RateLimit, ...] = getattr(bare, _OUTER, ()) or getattr(bare, _LIMITS, ())
    return found


def is_exempt(endpoint: object) -> bool:
    return bool(getattr(_bare(endpoint), _EXEMPT, False))


def check_cost(cost: object) -> int:
    if isinstance(cost, bool) or not isinstance(cost, int):
        raise TypeError(f"cost is an int, or a function that returns one, not {cost!r}")
    if not 0 <= cost <= _core.COST_MAX:
        raise ValueError(f"cost is 0 to 2**40 units, not {cost}")
    return cost


def _bare(endpoint: Any) -> Any:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    return endpoint


def _not_installed(what: str) -> str:
    return (
        f"{what}: nothing holds this limit. Call sluicegate.fastapi.install(app) (or "
        "sluicegate.starlette.install(app)) once for the application; a test that calls an "
        "endpoint itself finds it as endpoint.__wrapped__"
    )


def _checked(endpoint: Any) -> Any:
    """The endpoint behind a look at whether its limit holds. It is of the same kind (frameworks
    ask), and has the globals of the endpoint: those resolve its annotations."""
    guarded = _guarded.get
    message = _not_installed(f"@limit on {getattr(endpoint, '__qualname__', endpoint)}")
    error = RuntimeError

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if not guarded():
            raise error(message)
        return await endpoint(*args, **kwargs)

    async def streamed(*args: Any, **kwargs: Any) -> Any:
        if not guarded():
            raise error(message)
        async for item in endpoint(*args, **kwargs):
            yield item

    def generated(*args: Any, **kwargs: Any) -> Any:
        if not guarded():
            raise error(message)
        return (yield from endpoint(*args, **kwargs))

    def called(*args: Any, **kwargs: Any) -> Any:
        if not guarded():
            raise error(message)
        return endpoint(*args, **kwargs)

    template: Any = called
    if inspect.iscoroutinefunction(endpoint):
        template = awaited
    elif inspect.isasyncgenfunction(endpoint):
        template = streamed
    elif inspect.isgeneratorfunction(endpoint):
        template = generated
    wrapper: Any = FunctionType(
        template.__code__,
        getattr(inspect.unwrap(endpoint), "__globals__", globals()),
        template.__name__,
        closure=template.__closure__,
    )
    functools.update_wrapper(wrapper, endpoint)
    wrapper.__dict__.pop(_OUTER, None)  # another one's
    return wrapper


def _of_connection() -> inspect.Signature:
    try:
        from starlette.requests import HTTPConnection
    except ImportError as error:
        raise ImportError(
            'limits on routes need FastAPI or Starlette: pip install "sluicegate[fastapi]"'
        ) from error
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter("connection", kind, annotation=HTTPConnection)])
