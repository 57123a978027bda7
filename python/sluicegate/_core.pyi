"""The C extension. Its types are thin: the rule is in csrc/core, the policy in Python."""

import builtins
from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, final

from typing_extensions import Buffer, Self, disjoint_base

Key = str | bytes
Cost = int | Mapping[str, int]
_Algorithm = Literal["gcra", "fixed-window", "sliding-window", "sliding-log"]

COST_MAX: int
LIMIT_MAX: int
QUOTAS_MAX: int
HIREDIS: str  # its version; only where there is a path to servers
TRIP_BOUNDS: tuple[float, ...]  # seconds, ascending; the same

@disjoint_base
class Quota:
    """Limit, period, burst and algorithm of one quota, checked. Immutable, hashable.

    `sluicegate.Quota` subclasses it to add `parse`."""

    __match_args__: ClassVar[tuple[str, ...]]  # ("limit", "period", "burst", "algorithm", "name", "shadow")
    def __new__(
        cls,
        limit: int,
        period: float,
        *,
        burst: int | None = None,
        algorithm: str = "gcra",
        name: str | None = None,
        shadow: bool = False,
    ) -> Quota: ...
    @property
    def limit(self) -> int: ...
    @property
    def period(self) -> float: ...  # seconds
    @property
    def burst(self) -> int: ...  # equal to limit unless given
    @property
    def algorithm(self) -> _Algorithm: ...
    @property
    def name(self) -> str | None: ...
    @property
    def shadow(self) -> bool: ...
    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]: ...

@final
class Decision:
    """Immutable; made by limiters. True when allowed."""

    __match_args__: ClassVar[tuple[str, ...]]  # ("allowed", "limit", "remaining", "retry_after", "reset_after", "quota", "degraded", "shadow")
    def __new__(
        cls,
        allowed: bool,
        *,
        quota: Quota | None = None,
        limit: int | None = None,
        remaining: int = 0,
        retry_after: float = 0.0,
        reset_after: float = 0.0,
        degraded: bool = False,
        shadow: bool = False,
    ) -> Decision: ...  # for failure policies and tests; limiters make theirs in C
    def __bool__(self) -> bool: ...
    @property
    def allowed(self) -> bool: ...
    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def retry_after(self) -> float: ...  # seconds; 0.0 if allowed; inf if never
    @property
    def reset_after(self) -> float: ...  # seconds
    @property
    def quota(self) -> Quota | None: ...  # None under a ban, or where nothing is limited
    @property
    def degraded(self) -> bool: ...
    @property
    def shadow(self) -> bool: ...
    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]: ...
    def as_dict(self) -> dict[str, Any]: ...  # retry_after None for inf; quota by its name
    def headers(self, style: Literal["ietf", "x"] = "ietf") -> dict[str, str]: ...  # by sluicegate.headers

@disjoint_base
class Clock:
    """A clock that stands until it is advanced: int64 nanoseconds that C reads directly.
    `sluicegate.testing.Clock` subclasses it."""

    def __init__(self, start: float = 0.0) -> None: ...
    def time(self) -> float: ...  # seconds
    @property
    def ns(self) -> int: ...
    @ns.setter
    def ns(self, value: int) -> None: ...

@final
class SharedFile:
    """A file in which processes of one machine share state (csrc/shared)."""

    def __new__(
        cls, path: str, size: int = 0, keep: bool = True, make: bool = True
    ) -> SharedFile: ...
    # size: bytes; 0: as it is, else 64 MB; not make: as it is. StoreError where it cannot be used
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def made(self) -> bool: ...  # by this object, not found
    @property
    def processes(self) -> int: ...  # live ones that have it open
    def limiters(self) -> list[tuple[str, tuple[str, ...], str]]: ...  # name, algorithms, text
    def clear(self) -> None: ...  # StoreError where a stopped process is in the way
    def check(self) -> list[str]: ...  # what cannot be

@final
class Table:
    """The state of one limiter name in one store (csrc/core/table)."""

    def __new__(
        cls,
        algorithms: Sequence[str],  # one a quota; empty: a table of concurrency slots
        *,
        max_keys: int = 1_000_000,
        max_bytes: int | None = None,
        on_full: Literal["deny", "allow", "raise"] = "deny",
        clock: Clock | Callable[[], float] | None = None,  # None: CLOCK_MONOTONIC
        secret: bytes | None = None,  # 16 bytes; None: from the operating system
        shared: SharedFile | None = None,  # where the state is; then it has a name
        name: str | None = None,
        text: str | None = None,  # what SharedFile.limiters tells of it
        listener: Callable[[bool], object] | None = None,  # True: a lock is stalled; False: no more
    ) -> Table: ...
    @property
    def shared(self) -> bool: ...
    @property
    def other_shape(self) -> bool: ...  # its file has that name with other algorithms, too
    @property
    def algorithms(self) -> tuple[str, ...]: ...
    @property
    def keys(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def now(self) -> float: ...  # the clock of this table, in seconds
    def clear(self) -> None: ...
    def counters(self) -> dict[str, int]: ...
    # admitted, refused, shadow_refused, banned (refusals by a ban, also in refused),
    # evictions, full (decisions by on_full), degraded (without the server asked), keys, bytes
    def held(self) -> tuple[int, int]: ...
    # of slots in shared memory: all that living processes hold, and of how many keys
    def tally(self, index: int, /) -> None: ...  # in shared memory: one of 8 counts of its users
    def tallies(self) -> tuple[int, ...]: ...  # of all processes
    def top(self, count: int = 10, *, refused: bool = False) -> list[tuple[builtins.bytes, bool, int]]: ...
    # heaviest first: the first 64 bytes of the key, whether it was cut, an estimate of events

@disjoint_base
class Limiter:
    """Quotas over a table. The `_nowait` methods decide at once, in C."""

    def __init__(
        self,
        table: Table,
        quotas: Sequence[Quota | None],  # None: that place is unlimited
        *,
        shadow: bool = False,
        enabled: bool = True,
    ) -> None: ...
    @property
    def quotas(self) -> tuple[Quota | None, ...]: ...
    @property
    def table(self) -> Table: ...
    @property
    def server(self) -> Server | None: ...  # whose the state is; None: the table's
    @property
    def shadow(self) -> bool: ...
    @property
    def enabled(self) -> bool: ...
    @enabled.setter
    def enabled(self, value: bool) -> None: ...
    def _rebind(self, table: Table, quotas: Sequence[Quota | None], /) -> None: ...  # update(), testing.override
    def _when_stalled(self, on_store_error: str, local: Table | None, /) -> None: ...
    # where a stopped process has a lock of shared memory; `local` decides where it is "local"
    def hit_nowait(self, key: Key, cost: Cost = 1, *, quotas: Sequence[Quota | None] | None = None) -> Decision: ...
    def hit_awaitable(self, key: Key, cost: Cost = 1, *, quotas: Sequence[Quota | None] | None = None) -> Awaitable[Decision]: ...
    # a coroutine object in C (registered as collections.abc.Coroutine): decides when first awaited
    def peek_nowait(self, key: Key, cost: Cost = 1) -> Decision: ...
    def hit_many_nowait(self, pairs: Iterable[tuple[Key, Cost]], /) -> list[Decision]: ...
    def project_nowait(self, key: Key, costs: Sequence[Cost]) -> float: ...  # seconds until the last is admitted; inf
    def penalize_nowait(self, key: Key, cost: Cost = 1) -> None: ...
    def reward_nowait(self, key: Key, cost: Cost = 1) -> None: ...
    def reset_nowait(self, key: Key) -> None: ...
    def ban_nowait(self, key: Key, seconds: float) -> None: ...
    def unban_nowait(self, key: Key) -> None: ...
    def reserve_nowait(self, key: Key, cost: Cost = 1, ttl: float = 60.0) -> tuple[Decision, Receipt | None]: ...
    def bind(self, key: Key) -> Handle: ...
    # over a server; the _nowait methods raise RuntimeError then
    def _serve(
        self,
        server: Server | None,
        on_store_error: str = "raise",
        timeout: float = 0.5,
        deny_cache: float = 0.0,
        lease: int = 0,
    ) -> None: ...
    def _ask(
        self,
        operation: int,  # 0 peek, 1 hit, 2 reserve
        key: Key,
        cost: Cost = 1,
        quotas: Any = None,
        ttl: float = 60.0,
        detailed: int = 0,
    ) -> Any: ...
    # what is known at once, or a future of it: a Decision; reserving, (Decision, Ticket | Receipt | None);
    # detailed & 1: (Decision, bits of the quotas that refuse, what remains of each or None);
    # detailed & 2: a refusal is not counted
    def _ask_many(self, pairs: Iterable[tuple[Key, Cost]], /) -> Any: ...  # a list, or a future of it
    def _change(self, operation: str, key: Key, argument: Any = None, /) -> Future[None]: ...
    def _fetch(self, key: Key, /) -> Future[list[Any]]: ...
    def _foretell(self, fetched: list[Any], costs: Sequence[Cost], /) -> float: ...

@final
class Server:
    """The name of a limiter on a server (built with hiredis only, as the next three)."""

    def __new__(cls, store: Any, prefix: str, name: str, table: Table) -> Server: ...
    @property
    def name(self) -> str: ...
    @property
    def table(self) -> Table: ...
    @property
    def degraded(self) -> bool: ...
    def key(self, subject: Key, /) -> builtins.bytes: ...
    def forget(self) -> None: ...
    def slots(
        self,
        operation: str,
        owner: builtins.bytes,  # 16 bytes
        ttl_us: int,
        keys: Sequence[Key],
        numbers: Sequence[int],
        timeout: float,
        /,
    ) -> Future[list[Any]]: ...

@disjoint_base
class Router:
    """The links of one loop to a store. `stores.redis.routers` subclasses it."""

    def __new__(cls, loop: AbstractEventLoop, /) -> Self: ...
    @property
    def loop(self) -> AbstractEventLoop: ...
    @property
    def closed(self) -> bool: ...
    def _assign(self, first: int, last: int, link: Link | None, /) -> None: ...
    def _serve(self, link: Link | None, /) -> None: ...
    def _again(self) -> None: ...
    def _end(self) -> None: ...

@disjoint_base
class Link:
    """What waits and flies on one connection. `stores.redis.connection` subclasses it."""

    down: str | None
    @property
    def where(self) -> str: ...
    @property
    def hurry(self) -> bool: ...
    @property
    def waiting(self) -> int: ...
    @property
    def flying(self) -> int: ...
    def __init__(self, loop: AbstractEventLoop, where: str, router: Router | None = None) -> None: ...
    def take(self) -> builtins.bytes | None: ...
    def wrote(self) -> None: ...
    def _wait(self) -> None: ...
    def feed(self, data: Buffer, /) -> None: ...
    def expire(self) -> tuple[int, bool, float | None]: ...
    def lost(self, why: str, /) -> int: ...
    def drop(self, why: str, /) -> None: ...
    def pass_on(self, link: Link, /) -> None: ...
    def trips(self) -> tuple[float, tuple[int, ...]]: ...  # one more than TRIP_BOUNDS
    def asked(self) -> bool: ...
    def command(self, words: Sequence[Any], timeout: float, repeatable: bool = False, /) -> Future[Any]: ...

@final
class Ticket:
    """An open reservation on a server."""

    @property
    def open(self) -> bool: ...
    @property
    def reserved(self) -> tuple[int, ...]: ...
    def settle(self, actual: Cost, /) -> Future[None] | None: ...

@disjoint_base
class Handle:
    """A limiter and a key whose fingerprint is made."""

    def __new__(cls, limiter: Limiter, key: Key) -> Handle: ...
    @property
    def key(self) -> Key: ...
    @property
    def limiter(self) -> Limiter: ...
    def hit_nowait(self, cost: Cost = 1) -> Decision: ...
    def hit_awaitable(self, cost: Cost = 1) -> Awaitable[Decision]: ...
    def peek_nowait(self, cost: Cost = 1) -> Decision: ...

@final
class Receipt:
    """An open reservation. Settling twice is harmless; after its ttl nothing comes back."""

    @property
    def open(self) -> bool: ...
    @property
    def reserved(self) -> tuple[int, ...]: ...
    def settle_nowait(self, actual: Cost, /) -> None: ...  # 0: cancel

@final
class Slots:
    """Concurrency slots over a Table made with no algorithms."""

    def __new__(cls, table: Table, limit: int) -> Slots: ...
    @property
    def limit(self) -> int: ...
    def acquire_nowait(self, key: Key, limit: int | None = None) -> Slot | None: ...
    def count_nowait(self, key: Key, /) -> int: ...

@final
class Slot:
    """One held slot; given back by release, or when it is forgotten (with a ResourceWarning,
    unless it is quiet: for a holder that gives it back when it is itself forgotten)."""

    quiet: bool
    @property
    def key(self) -> Key: ...
    @property
    def held(self) -> bool: ...
    def release_nowait(self) -> bool: ...  # whether it was held

@final
class Call:
    """What the `_awaitable` methods return: a coroutine object in C."""

    __name__: str
    __qualname__: str
    @property
    def cr_await(self) -> Any: ...
    @property
    def cr_running(self) -> bool: ...
    def __await__(self) -> Call: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...

@final
class ConnectionInfo:
    """A live connection: its counters and its prepared key. See sluicegate.websocket."""

    connection_id: str | None
    client_id: str | bytes
    connected_at: float
    message_count: int
    bytes_sent: int
    last_message_time: float | None
    metadata: dict[str, Any]
    _plan: Any  # Python's: the limits of its client
    _place: Any  # Python's: its place, given back when it is dropped
    def __init__(
        self,
        connection_id: str | None = None,
        client_id: str | bytes | None = None,
        connected_at: float | None = None,
        message_count: int = 0,
        bytes_sent: int = 0,
        last_message_time: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None: ...

@disjoint_base
class Connections:
    """connection id to ConnectionInfo, and the message check over them in one C call.
    sluicegate.websocket.WebSocketRateLimiter subclasses it."""

    total_messages: int
    total_bytes: int
    def _tally_in(self, table: Table | None, /) -> None: ...  # tallies 0 and 1: messages and bytes
    @property
    def _live(self) -> dict[Any, ConnectionInfo]: ...
    def _add(
        self,
        info: ConnectionInfo,
        limiter: Limiter,
        byte_quotas: int,  # bit i: quota i of the limiter is charged the size, the others 1
        max_message_size: int | None,
        /,
    ) -> None: ...
    def _remove(self, connection_id: Any, /) -> ConnectionInfo | None: ...
    def _get(self, connection_id: Any, /) -> ConnectionInfo | None: ...
    def _check(self, connection_id: Any, message_size: int = 0) -> Any: ...
    # a result dict, or (info | None, reason, decision | None, size) that Python makes one of
    def _decide(self, connection_id: Any, message_size: int, cost: int = 1, /) -> Any: ...
    # the same with a Decision in place of the dict; cost is that of the message quotas
    def check_message_awaitable(
        self, connection_id: Any, message_size: int = 0
    ) -> Awaitable[dict[str, Any]]: ...
    # calls _check when awaited; where that is a tuple it awaits self._refused(*tuple)

@final
class Sender:
    """The `send` of an ASGI server, for responses that are to have headers more. It returns what
    `send` does."""

    def __new__(
        cls,
        send: Callable[[Any], Any],
        fields: Sequence[tuple[builtins.bytes, builtins.bytes]],  # names in small letters
    ) -> Sender: ...
    def __call__(self, message: Any, /) -> Any: ...

@final
class HttpGate:
    """Decides the usual request in one call: see sluicegate.asgi.search."""

    def __new__(
        cls,
        # (matches(path), given, limiter, blocked, key(who, path), whether the path ends the key);
        # no limiter: left to who calls
        patterns: Sequence[tuple[Any, Any, Limiter | None, Limiter | None, Any, bool]],
        address: Callable[[Any], str],
        by_peer: bool = False,  # scope["client"][0] alone tells it
        headers: Literal["ietf", "x", "both"] | None = None,
        usual: Callable[[str], object] | None = None,  # whether a path is; others are left
    ) -> HttpGate: ...
    def __call__(self, scope: Any, send: Any, /) -> Any: ...
    # the `send` to go on with; (given, decision) of a refusal; None: not decided, not charged

@final
class MessageGate:
    """Decides the usual message of a WebSocket in one call: see sluicegate.asgi.guard."""

    def __new__(
        cls,
        limiter: Limiter | None,
        key: Key,
        messages: int = 0,  # so many of its quotas take 1, the others the bytes of a message
        max_size: int | None = None,
    ) -> MessageGate: ...
    def __call__(self, message: Any, /) -> Decision | Literal[True] | None: ...
    # True: a message, and admitted; the decision that refuses it; None: not decided, not charged

@final
class FrameSend:
    """The `send` of a WebSocket's application: frames go to `send`, all else to `otherwise`."""

    straight: bool  # frames, too, go to `otherwise` unless this is so
    def __new__(
        cls, send: Callable[[Any], Any], otherwise: Callable[[Any], Any]
    ) -> FrameSend: ...
    def __call__(self, message: Any, /) -> Any: ...

def raw_headers(
    decision: Decision, style: Literal["ietf", "x", "both"], /
) -> list[tuple[bytes, bytes]]: ...
# as ASGI has them: names in small letters

def completed(
    own: Iterable[tuple[bytes, bytes]], more: Iterable[tuple[bytes, bytes]], /
) -> list[tuple[bytes, bytes]]: ...
# a response's headers, and those of `more` (in small letters) that it does not have

def hit_all_nowait(triples: Sequence[tuple[Limiter, Key, Cost]], /) -> tuple[Decision, int]: ...
# all or none: the binding decision, and the index of its triple

def ask_all(triples: Sequence[tuple[Limiter, Key, Cost]], /) -> Any: ...
# the same on one server: what is known at once, or a future of it

def set_running_loop(running_loop: Callable[[], AbstractEventLoop], /) -> None: ...
# asyncio.get_running_loop, which this module does not import

def set_released(released: Callable[[Table, Key], object], /) -> None: ...
# called whenever a slot was given back or forgotten (who waits for one)

def set_observer(observer: Callable[[Limiter, Key, Decision], object] | None, /) -> None: ...
# called after each decision of any limiter (testing.record)

def own_method(cls: type, method: Any, /) -> Any: ...
# a method of a C type again, as one of its subclass cls: quicker to call

def fingerprint(secret: bytes, key: Key, /) -> bytes: ...  # 16 bytes, SipHash-1-3-128

class StoreError(Exception): ...
class StoreFullError(StoreError): ...
