"""The limits of a client's WebSockets."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from .. import _core
from ..quota import ALGORITHMS, Quota, as_quotas, parse_quotas

__all__ = ["WebSocketLimits"]

Rate = str | _core.Quota | tuple[str | _core.Quota, ...]

MINUTE = 60.0


@dataclass(frozen=True)
class WebSocketLimits:
    """What one client may do, over all its connections. None is unlimited.

    `connections_per_minute`: new connections. `messages_per_minute`, `bytes_per_minute`:
    decided as one. `max_concurrent_connections`: open at a time. `max_message_size`: bytes.

    `messages`, `bytes` and `connections` take rate strings, as `"5/second burst 20"`, in
    place of the minute fields, which are None then; a rate string names its own algorithm
    (gcra unless `using ...`). `algorithm` is that of the minute fields: "sliding-log" lets
    no minute, whenever it starts, have more than the limit.

    TypeError or ValueError for what is no limit: zero, negative, too large, not an int.
    """

    connections_per_minute: int | None = 60
    messages_per_minute: int | None = 1000
    bytes_per_minute: int | None = None
    max_concurrent_connections: int | None = 10
    max_message_size: int | None = 65536
    _: KW_ONLY
    messages: Rate | None = None
    bytes: Rate | None = None
    connections: Rate | None = None
    algorithm: str = "sliding-log"

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm is one of {', '.join(ALGORITHMS)}, not {self.algorithm!r}")
        for kind in ("messages", "bytes", "connections"):
            field = f"{kind}_per_minute"
            rate = getattr(self, kind)
            per_minute = _whole(field, getattr(self, field), _core.LIMIT_MAX)
            if rate is not None:
                per_minute = None
                if isinstance(rate, list):
                    rate = tuple(rate)
            quotas = _quotas(kind, per_minute, rate, self.algorithm)
            object.__setattr__(self, field, per_minute)
            object.__setattr__(self, kind, rate)
            object.__setattr__(self, f"_{kind}", quotas)
        for field in ("max_concurrent_connections", "max_message_size"):
            object.__setattr__(self, field, _whole(field, getattr(self, field), _core.COST_MAX))
        together = [*self.quotas_of("messages"), *self.quotas_of("bytes")]
        if together:
            as_quotas(together)  # one decision: not too many, and no two of one name

    def quotas_of(self, kind: str) -> tuple[_core.Quota, ...]:
        """The quotas of "messages", "bytes" or "connections"; empty where unlimited."""
        quotas: tuple[_core.Quota, ...] = getattr(self, f"_{kind}")
        return quotas

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as plain values, and `max_concurrent`, its name in the source."""
        shown = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        shown["max_concurrent"] = self.max_concurrent_connections
        return shown


def _whole(name: str, value: int | None, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is an int, or None for unlimited, not {type(value).__name__}")
    whole = value.__index__()
    if not 1 <= whole <= most:
        raise ValueError(f"{name} is 1 to {most}, or None for unlimited, not {whole}")
    return whole


def _quotas(
    kind: str, per_minute: int | None, rate: Rate | None, algorithm: str
) -> tuple[_core.Quota, ...]:
    if rate is not None:
        parts = (rate,) if isinstance(rate, str | _core.Quota) else rate
        if not isinstance(parts, tuple):
            raise TypeError(
                f"{kind} is a rate string as '5/second', a Quota or a list of either, "
                f"not {type(rate).__name__} ({kind}_per_minute takes a number)"
            )
        found: list[_core.Quota] = []
        for part in parts:
            found.extend(parse_quotas(part) if isinstance(part, str) else as_quotas((part,)))
        return as_quotas([_named(quota, kind, place) for place, quota in enumerate(found, 1)])
    if per_minute is None:
        return ()
    try:
        return (Quota(per_minute, MINUTE, algorithm=algorithm, name=kind),)
    except ValueError as error:
        raise ValueError(f"{kind}_per_minute: {error}") from None


def _named(quota: _core.Quota, kind: str, place: int) -> _core.Quota:
    """With a name that tells it apart: its own, else the kind's. (Rates in KB and MB are all
    named `bytes` unless named.)"""
    if quota.name is not None and quota.name != "bytes":
        return quota
    return Quota(
        quota.limit,
        quota.period,
        burst=quota.burst if quota.algorithm == "gcra" else None,
        algorithm=quota.algorithm,
        name=kind if place == 1 else f"{kind} {place}",
        shadow=quota.shadow,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return repr(value) if isinstance(value, _core.Quota) else value
