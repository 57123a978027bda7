"""What a group may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any, Literal

from .. import _core
from .._support import check_number
from ..quota import Quota, as_quotas, parse_quotas, parse_size
from ..websocket.excess import Notify, OnExcess

__all__ = ["RULENAMES", "TTL", "Key", "Rate", "Rule"]

# the units of a rule, in seconds
TTL: dict[str, int] = {
    "second": 1,
    "minute": 60,
    "hour": 60 * 60,
    "day": 24 * 60 * 60,
    "month": 31 * 24 * 60 * 60,
}
RULENAMES: tuple[str, ...] = tuple(TTL)

RATES = ("requests", "connections", "messages", "bytes")  # the fields that take rate strings

Rate = str | _core.Quota | tuple[str | _core.Quota, ...]
Key = Literal["user", "ip", "app"] | Callable[[Any], Any]

_BLOCK_MAX = 10 * 365 * 24 * 60 * 60  # seconds; what a ban can be, but for leap days


@dataclass(frozen=True)
class Rule:
    """What a user of a group may do, by HTTP and by WebSocket.

    `second` to `month` (31 days): that many requests in each, all of them decided together,
    counted by path. A window starts at a user's first request.
    `group`: whom it is for; "*" is everybody. `method`: the HTTP method it is for (a handshake
    is a GET, and a HEAD counts as one); None (or "*") is any. `zone` is a name to count under in
    place of the path or pattern, so that all rules of one zone share a pool. `block_time`:
    seconds for which a user who was refused is refused everywhere in the backend, unless his
    group is unlimited there; what is left of them is what he is told.

    The rest is counted by pattern, or (`per="path"`) by path. Rates are strings as
    "5/second burst 20; 200/minute", a Quota, or a list of either.
    `requests`: HTTP requests, and handshakes too where `connections`, the rate of handshakes,
    is not given. `concurrent`: open at a time, WebSockets and HTTP requests; of WebSockets
    alone in a rule that limits nothing else but them. `messages`, `bytes`: what WebSockets
    receive, decided as one; `max_message_size`: bytes, or a size as "64KB".

    `on_excess` is what becomes of a message over a limit: "close" closes with 1008 (1009 for
    size), "drop" leaves it out, "notify" does and says so (`notify` makes the message of its
    dict), "delay" holds reading back for at most `max_delay` seconds, then closes.
    `max_refusals`: a rate; a WebSocket that is refused more often is closed.
    `refuse` is how a handshake is refused: "deny" by HTTP 429 (403 where the server lacks the
    extension for it), "close" accepts and closes with 1008, which a browser can see.

    `key` is who is counted: the "user" that `authenticate` tells, the "ip" that it comes from,
    the whole "app", or what a function of the scope, plain or async, returns. Rules by "ip" are
    decided before `authenticate` runs, and so for every group.
    `shadow`: counts apart and holds nothing back. `cost`: a function, plain or async, of the
    scope (of a request or handshake) or the ASGI message (of a WebSocket): how many units it
    takes. `count_when(status)`: a request's units are given back unless this is true of its
    HTTP status (101 for a handshake that is accepted).

    A rule without any limit is no limit: whom it is for is unlimited.
    ValueError or TypeError for what makes no sense.
    """

    second: int | None = None
    minute: int | None = None
    hour: int | None = None
    day: int | None = None
    month: int | None = None

    group: str = "default"
    method: str | None = None
    zone: str | None = None
    block_time: float | None = None

    _: KW_ONLY
    requests: Rate | None = None
    connections: Rate | None = None
    concurrent: int | None = None
    messages: Rate | None = None
    bytes: Rate | None = None
    max_message_size: int | str | None = None
    on_excess: OnExcess = "close"
    notify: Notify | None = None
    max_delay: float = 10.0
    refuse: Literal["deny", "close"] = "deny"
    max_refusals: Rate | None = None
    shadow: bool = False
    cost: Callable[[Any], Any] | None = None
    count_when: Callable[[int], Any] | None = None
    key: Key = "user"
    per: Literal["pattern", "path"] = "pattern"

    def __post_init__(self) -> None:
        for unit, limit in self.limits().items():
            _check_limit(unit, limit, "requests")
        for what in ("group", "method", "zone"):
            _check_text(what, getattr(self, what), optional=what != "group")
        for what in (*RATES, "max_refusals"):
            given = getattr(self, what)
            if isinstance(given, list):
                object.__setattr__(self, what, tuple(given))
            rates(what, getattr(self, what))
        if self.messages is not None and self.bytes is not None:
            as_quotas([*self.quotas("messages"), *self.quotas("bytes")])  # one decision
        if self.concurrent is not None:
            _check_limit("concurrent", self.concurrent, "connections")
        if self.max_message_size is not None:
            try:
                object.__setattr__(self, "max_message_size", parse_size(self.max_message_size))
            except (TypeError, ValueError) as error:
                raise type(error)(f"max_message_size: {error}") from None
        self._check_choices()
        self._check_block_time()
        self._check_sense()

    @property
    def unlimited(self) -> bool:
        """Whether it limits nothing."""
        return not (self.counts or self.of_messages or self.concurrent is not None)

    @property
    def plain(self) -> bool:
        """Whether it says nothing but what asgi-ratelimit's rules can say."""
        return (
            self.key == "user"
            and not self.shadow
            and self.cost is None
            and self.count_when is None
            and self.concurrent is None
            and not self.of_messages
            and self.requests is self.connections is None
        )

    @property
    def counts(self) -> bool:
        """Whether it counts requests or handshakes."""
        return bool(self.limits()) or not (self.requests is self.connections is None)

    @property
    def of_messages(self) -> bool:
        """Whether it limits what a WebSocket receives."""
        return not (self.messages is self.bytes is self.max_message_size is None)

    @property
    def of_requests(self) -> bool:
        """Whether it limits HTTP requests."""
        if self.limits() or self.requests is not None:
            return True
        return self.concurrent is not None and self.connections is None and not self.of_messages

    def limits(self) -> dict[str, int]:
        """The units that are limited, and how many requests each may have."""
        return {unit: getattr(self, unit) for unit in TTL if getattr(self, unit) is not None}

    def quotas(self, what: str) -> tuple[_core.Quota, ...]:
        """The quotas of "requests", "connections", "messages", "bytes" or "max_refusals", newly
        made, so that each is known from those of other rules; empty where unlimited."""
        return rates(what, getattr(self, what))

    def only_method(self) -> str | None:
        """The method it is for, in capitals; None for any."""
        return None if self.method in (None, "*") else str(self.method).upper()

    def ruleset(self, path: str, user: str) -> dict[str, tuple[int, int]]:
        """For a backend of one's own: keys to count under, each with its limit and seconds."""
        method = self.method or "*"
        return {
            f"{path}:{method}:{user}:{unit}": (limit, TTL[unit])
            for unit, limit in self.limits().items()
        }

    def _check_choices(self) -> None:
        for what, choices in (
            ("on_excess", ("close", "drop", "delay", "notify")),
            ("refuse", ("deny", "close")),
            ("per", ("pattern", "path")),
        ):
            given = getattr(self, what)
            if given not in choices:
                raise ValueError(f"{what} is {_either(choices)}, not {given!r}")
        if not callable(self.key) and self.key not in ("user", "ip", "app"):
            raise ValueError(
                f"key is 'user', 'ip', 'app' or a function of the scope, not {self.key!r}"
            )
        for what in ("notify", "cost", "count_when"):
            given = getattr(self, what)
            if given is not None and not callable(given):
                raise TypeError(f"{what} is a function, not {type(given).__name__}")
        if not isinstance(self.shadow, bool):
            raise TypeError(f"shadow is a bool, not {type(self.shadow).__name__}")
        if check_number(self.max_delay, "max_delay") == inf:
            raise ValueError("max_delay is finite")

    def _check_block_time(self) -> None:
        if self.block_time is None:
            return
        block_time = check_number(self.block_time, "block_time", equal=True)
        if block_time > _BLOCK_MAX:
            length = "without end" if block_time == inf else f"{block_time:g} seconds"
            raise ValueError(f"block_time is at most ten years, not {length}")
        if not block_time:
            return
        if not self.counts:
            raise ValueError("block_time does nothing in a rule without a limit of requests")
        if self.shadow:
            raise ValueError("block_time does nothing in a shadow rule")

    def _check_sense(self) -> None:
        """What would be silently of no effect is an error."""
        if self.key == "ip" and self.group not in ("default", "*"):
            raise ValueError(
                "a rule by ip is decided before the group is known: it is for every group"
            )
        if not self.of_messages:
            for what, default in (("on_excess", "close"), ("notify", None), ("max_refusals", None)):
                if getattr(self, what) != default:
                    raise ValueError(
                        f"{what} is of messages: it does nothing in a rule without messages=, "
                        f"bytes= or max_message_size="
                    )
        if self.notify is not None and self.on_excess != "notify":
            raise ValueError("notify makes the message of on_excess='notify'")
        if self.count_when is not None and not self.counts:
            raise ValueError("count_when does nothing in a rule without a limit of requests")
        if self.cost is not None and not self.counts and self.messages is None:
            raise ValueError("cost does nothing in a rule without a rate that it could be of")
        if self.shadow and self.unlimited:
            raise ValueError("shadow does nothing in a rule without a limit")


def rates(what: str, rate: Any) -> tuple[_core.Quota, ...]:
    """The quotas of a rate, each with a name that tells what it is of. The error says which
    field it was."""
    if rate is None:
        return ()
    try:
        found = [_named(quota, what, place) for place, quota in enumerate(_each(rate), 1)]
        return as_quotas(found)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what}: {error}") from None


def _each(rate: Any) -> list[_core.Quota]:
    if isinstance(rate, str):
        return list(parse_quotas(rate))
    if isinstance(rate, tuple):
        return [quota for part in rate for quota in _each(part)]
    return list(as_quotas(rate))


def _named(quota: _core.Quota, what: str, place: int) -> _core.Quota:
    """A new one, with a name that tells it apart: its own, else that of the field. (Rates in KB
    and MB are all named `bytes` unless named.)"""
    own = quota.name if quota.name != "bytes" else None
    return Quota(
        quota.limit,
        quota.period,
        burst=quota.burst if quota.algorithm == "gcra" else None,
        algorithm=quota.algorithm,
        name=own or (what if place == 1 else f"{what} {place}"),
        shadow=quota.shadow,
    )


def _either(choices: tuple[str, ...]) -> str:
    *most, last = (repr(choice) for choice in choices)
    return f"{', '.join(most)} or {last}"


def _check_limit(what: str, limit: object, of: str) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(
            f"{what} is a number of {of}, an int, not {type(limit).__name__} "
            f"(name the arguments: Rule(second=5, group='admin'))"
        )
    if not 1 <= limit <= _core.LIMIT_MAX:
        raise ValueError(f"{what} is 1 to 2**40 {of}, not {limit}; None is unlimited")


def _check_text(what: str, value: object, *, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str{' or None' * optional}, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{what} is not empty")
