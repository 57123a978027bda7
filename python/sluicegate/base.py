"""What a limiter is before it is asynchronous or not: quotas over a store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, inf
from typing import Any, Literal

from . import _core
from ._support import DONE, Done, check_number, key_bytes
from .claims import HitClaim, ReserveClaim
from .quota import as_quotas
from .stores import LocalStore, Store, attach, open_store
from .stores.layout import Layout, Quotas, arrange, shape_error
from .waiting import wake, wake_table

__all__ = ["BaseLimiter", "QuotasArgument"]

QuotasArgument = str | _core.Quota | Sequence[str | _core.Quota]
OnStoreError = Literal["raise", "allow", "deny", "local"]
POLICIES = ("raise", "allow", "deny", "local")


# Its docstring is that of both limiters, for tasks and for threads.
class BaseLimiter(_core.Limiter):
    """Limits how often a key may do something: quotas over a store.

    `quotas`: a Quota, a rate string as "5/second burst 20; 1MB/minute", or a list of
    either. All of them admit an event or none is charged.
    `store`: a store or its URL; None is this process's memory.
    `name`: limiters of one name on one store share their state, whatever their numbers;
    unnamed ones in memory share nothing; over a server it is required.
    The rest is for stores outside the process; memory does not fail, and is asked at its
    own speed, so that over memory it is checked and changes nothing.
    `timeout`: seconds that a check may take at most. `on_store_error`: what it comes to
    where the store does not decide: "raise" (StoreError), "allow", "deny", or "local" (the
    whole quotas in this process's memory); the decision is `degraded` then.
    `deny_cache`: for how many seconds at most a refused key is refused without a question.
    `lease`: units of a key that are drawn at once, to be spent without a question for up to
    a second.
    `shadow`: decides, counts, reports and admits. `enabled`: False admits all, uncounted.

    ValueError or TypeError for what makes no sense, and for a name that another shape has.
    """

    __slots__ = (
        "_home",
        "_layout",
        "_store",
        "deny_cache",
        "lease",
        "name",
        "on_store_error",
        "timeout",
    )

    name: str | None
    on_store_error: OnStoreError
    timeout: float
    deny_cache: float | None
    lease: int | None

    def __init__(
        self,
        quotas: QuotasArgument,
        *,
        store: Store | str | None = None,
        name: str | None = None,
        on_store_error: OnStoreError = "raise",
        timeout: float = 0.5,
        shadow: bool = False,
        enabled: bool = True,
        deny_cache: float | None = None,
        lease: int | None = None,
    ) -> None:
        check_name(name)
        if on_store_error not in POLICIES:
            raise ValueError(
                f"on_store_error is 'raise', 'allow', 'deny' or 'local', not {on_store_error!r}"
            )
        self.name = name
        self.on_store_error = on_store_error
        self.timeout = _finite(timeout, "timeout")
        self.deny_cache = None if deny_cache is None else _finite(deny_cache, "deny_cache")
        self.lease = _lease(lease)
        given = as_quotas(quotas)
        self._store = open_store(store)
        if not isinstance(self._store, LocalStore):
            _check_lease(self.lease, given)
        table = self._store.table(name, given)
        self._layout = self._store.layout(name, given)
        self._home = (self._store, table, self._layout)
        super().__init__(table, self._arranged(given), shadow=shadow, enabled=enabled)
        self._ask_server(name)
        attach(self)

    @property
    def store(self) -> Store:
        """Where its state lives now."""
        return self._store

    def _ask_server(self, name: str | None) -> None:
        """Over a store outside the process, its server decides from now on."""
        server = self._store.server(name)
        if server is not None:
            assert not isinstance(self._store, LocalStore)
            self._store.made(name, self)
            self._serve(
                server,
                self.on_store_error,
                self.timeout,
                self.deny_cache or 0.0,
                self.lease or 0,
            )
            return
        if self.server is not None:
            self._serve(None)
        assert isinstance(self._store, LocalStore)
        self._store.guard(self, self.on_store_error)
        self._store.made(name, self)

    def update(self, quotas: QuotasArgument) -> Done:
        """Changes the numbers at once (it need not be awaited), and keeps the state: gcra
        the time at which the quota is whole again, windows their counts until they end,
        the log its entries. ValueError for another number of quotas, or other algorithms.
        """
        given = as_quotas(quotas)
        if self.server is not None:
            _check_lease(self.lease, given)
        self._rebind(self.table, self._arranged(given))
        if isinstance(self._store, LocalStore):
            self._store.changed(self)
        wake_table(self.table)
        return DONE

    def _quotas_of(self, quotas: QuotasArgument | Sequence[_core.Quota | None]) -> Quotas:
        """C asks it what `hit(key, quotas=...)` means: the quotas, each in its place."""
        if isinstance(quotas, str):
            arranged = _text_in_place(quotas, self._layout)
            return arranged or self._arranged(as_quotas(quotas))
        if isinstance(quotas, list | tuple) and None in quotas:
            return self._arranged(quotas)
        return self._arranged(as_quotas(quotas))  # type: ignore[arg-type]

    def _arranged(self, quotas: Sequence[_core.Quota | None]) -> Quotas:
        arranged = arrange(self._layout, quotas)
        if arranged is None:
            raise shape_error(
                self.name,
                self._layout,
                quotas,
                "numbers change at run time, algorithms do not; make another limiter",
            )
        return arranged

    def _use_store(self, store: Store | None) -> None:
        quotas, name = self.quotas, self.name
        if store is None or store is self._home[0]:
            self._store, table, self._layout = self._home
        else:
            name = store.loose_name() if name is None else name
            try:
                table = store.table(name, quotas)
            except ValueError:
                # a limiter of another store has that name there: they share nothing
                name = store.loose_name()
                table = store.table(name, quotas)
            self._store, self._layout = store, store.layout(name, quotas)
        self._rebind(table, self._arranged(quotas))
        self._ask_server(name)

    def _wake(self, key: _core.Key) -> None:
        wake(self.table, key_bytes(key))

    def _hit_claim(self, key: _core.Key, cost: _core.Cost) -> HitClaim:
        return HitClaim(self, key, cost, self._store.clock)

    def _reserve_claim(self, key: _core.Key, cost: _core.Cost, ttl: float) -> ReserveClaim:
        check_number(ttl, "ttl")
        return ReserveClaim(self, key, cost, self._store.clock, ttl)

    def __repr__(self) -> str:
        parts = [repr(list(self.quotas)), f"store={self._store!r}"]
        if self.name is not None:
            parts.append(f"name={self.name!r}")
        if self.shadow:
            parts.append("shadow=True")
        if not self.enabled:
            parts.append("enabled=False")
        return f"{type(self).__name__}({', '.join(parts)})"


@lru_cache(maxsize=1024)
def _text_in_place(text: str, layout: Layout) -> Quotas | None:
    return arrange(layout, as_quotas(text))


def wait_bounds(timeout: float | None, max_waiters: int) -> float:
    """The timeout in seconds (None: without end), both checked."""
    if isinstance(max_waiters, bool) or not isinstance(max_waiters, int):
        raise TypeError(f"max_waiters is an int, not {type(max_waiters).__name__}")
    if max_waiters < 0:
        raise ValueError(f"max_waiters is at least 0, not {max_waiters}")
    return wait_timeout(timeout)


def wait_timeout(timeout: float | None) -> float:
    return inf if timeout is None else check_number(timeout, "timeout", equal=True)


def check_name(name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a name is a str or None, not {type(name).__name__}")
    if name == "":
        raise ValueError("a name is not empty; leave it out for a limiter that shares nothing")


def _finite(value: Any, what: str) -> float:
    number = check_number(value, what)
    if number == inf:
        raise ValueError(f"{what} is finite, not {value}")
    return number


def _lease(lease: object) -> int | None:
    if lease is None:
        return None
    if isinstance(lease, bool) or not isinstance(lease, int):
        raise TypeError(f"lease is a number of units, an int, not {type(lease).__name__}")
    if not 1 <= lease <= _core.LIMIT_MAX:
        raise ValueError(f"lease is 1 to 2**40 units, not {lease}")
    return lease


def _check_lease(lease: int | None, quotas: Sequence[_core.Quota]) -> None:
    """ValueError where these quotas cannot be leased: a draw must always fit an unused key."""
    for quota in quotas if lease is not None else ():
        if quota.algorithm not in ("gcra", "fixed-window") or quota.shadow:
            what = "shadow quotas" if quota.shadow else quota.algorithm
            raise ValueError(f"lease= is for gcra and fixed-window quotas, not for {what}")
        spare = quota.burst
        if quota.algorithm == "gcra":
            # what is drawn may be spent a second later: see csrc/redis/purse.h
            spare -= ceil(quota.limit / quota.period)
        if lease > spare:  # type: ignore[operator]
            raise ValueError(
                f"lease={lease} is more than this quota can lease: "
                + (
                    f"{max(spare, 0)}, its burst of {quota.burst} less what a second refills"
                    if quota.algorithm == "gcra"
                    else f"its limit of {quota.limit}"
                )
            )
