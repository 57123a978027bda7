"""Quotas, and what stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from . import _core

__all__ = ["Quota", "as_quotas", "parse_quotas", "parse_size"]

ALGORITHMS = ("gcra", "fixed-window", "sliding-window", "sliding-log")


class Quota(_core.Quota):
    """`limit` units in `period` seconds.

    `burst` (gcra alone; equal to `limit` unless given) is how many units are admitted at
    once; `algorithm` is "gcra", "fixed-window", "sliding-window" or "sliding-log"; `name`
    is what a cost mapping calls it; a `shadow` quota is charged apart and holds nothing
    back. ValueError or TypeError where a number makes no sense. Immutable, comparable.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Quota:
        """The one quota that a rate string stands for, as `5/second burst 20`.

        ValueError shows the string and points at what is wrong.
        """
        quotas = _parse(text)
        if len(quotas) != 1:
            from .rates import Scanner

            Scanner(text).fail("expected one quota, without `;`", text.index(";"))
        quota = quotas[0]
        return quota if cls is Quota else _as_class(cls, quota)


def _as_class(cls: type[Quota], quota: Quota) -> Quota:
    return cls(
        quota.limit,
        quota.period,
        burst=None if quota.burst == quota.limit else quota.burst,
        algorithm=quota.algorithm,
        name=quota.name,
    )


def parse_quotas(text: str) -> list[Quota]:
    """The quotas of a rate string, several joined by `;`: `5/second; 1MB/minute`.

    ValueError shows the string and points at what is wrong.
    """
    return list(_parse(text))


def parse_size(size: str | int) -> int:
    """Bytes of a size as `64KB`, `1.5 MB`, `512` or 512 (KB and MB are 1024-based).

    ValueError for what is no size, and below 1.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 1:
            raise ValueError(f"a size is at least 1 byte, not {size}")
        return size
    if not isinstance(size, str):
        raise TypeError(f"a size is an int or a str as '64KB', not {type(size).__name__}")
    from .rates import Scanner

    scanner = Scanner(size, "size")
    amount, _ = scanner.amount("a size, as 64KB")
    scanner.space()
    if scanner.at < len(size):
        scanner.fail("expected B, KB, MB or GB, and no more")
    return amount


def as_quotas(
    quotas: str | _core.Quota | Sequence[str | _core.Quota],
) -> tuple[_core.Quota, ...]:
    """The quotas of a limiter: a Quota, a rate string, or a sequence of either.

    ValueError unless there are 1 to QUOTAS_MAX and no two have one name.
    """
    found: tuple[_core.Quota, ...]
    if isinstance(quotas, str):
        found = _parse(quotas)
    elif isinstance(quotas, _core.Quota):
        found = (quotas,)
    else:
        found = tuple(_each(quotas))
    if not 1 <= len(found) <= _core.QUOTAS_MAX:
        raise ValueError(f"a limiter has 1 to {_core.QUOTAS_MAX} quotas, not {len(found)}")
    seen = set()
    for quota in found:
        if quota.name is not None and quota.name in seen:
            raise ValueError(
                f"two quotas are named {quota.name!r}: give one another name, "
                f"as 'other: 5/second' (a byte quota is named 'bytes' unless named)"
            )
        seen.add(quota.name)
    return found


def _each(quotas: Sequence[str | _core.Quota]) -> Sequence[_core.Quota]:
    found: list[_core.Quota] = []
    if isinstance(quotas, bytes | bytearray | memoryview) or not hasattr(quotas, "__iter__"):
        raise TypeError(_expected(quotas))
    for quota in quotas:
        if isinstance(quota, str):
            found.extend(_parse(quota))
        elif isinstance(quota, _core.Quota):
            found.append(quota)
        else:
            raise TypeError(_expected(quota))
    return found


def _expected(given: object) -> str:
    return f"expected a Quota, a rate string or a list of either, not {type(given).__name__}"


def _parse(text: str) -> tuple[Quota, ...]:
    if not isinstance(text, str):
        raise TypeError(f"a rate string is a str, not {type(text).__name__}")
    return _parsed(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Quota, ...]:
    # in a module of its own: an import of the package reads no rate string yet
    from .rates import parse

    return parse(text)
