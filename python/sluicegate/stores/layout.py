"""Which place in a key's state each quota of a limiter has.

State belongs to the name of a quota, or to its position where it has none; never to its
numbers. So a limiter made later, with the same names in another order, finds its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import _core

__all__ = ["Layout", "arrange", "layout_of", "shape_error"]

Quotas = tuple[_core.Quota | None, ...]
Layout = tuple[tuple[str | None, str], ...]  # name and algorithm of each place


def layout_of(quotas: Sequence[_core.Quota | None]) -> Layout:
    """The places of a first limiter: as its quotas stand. None is an unlimited one."""
    return tuple(
        (None, "gcra") if quota is None else (quota.name, quota.algorithm) for quota in quotas
    )


def arrange(layout: Layout, quotas: Sequence[_core.Quota | None]) -> Quotas | None:
    """The quotas, each in its place: by name, the rest in order. None: another shape."""
    if len(quotas) != len(layout):
        return None
    if len(layout) == 1:
        quota = quotas[0]
        fits = quota is None or quota.algorithm == layout[0][1]
        return (quota,) if fits else None
    by_name = {name: place for place, (name, _) in enumerate(layout) if name is not None}
    placed: dict[int, _core.Quota | None] = {}
    rest = []
    for quota in quotas:
        place = None if quota is None or quota.name is None else by_name.get(quota.name)
        if place is None or place in placed:
            rest.append(quota)
        else:
            placed[place] = quota
    free = iter(rest)
    arranged = tuple(
        placed[place] if place in placed else next(free) for place in range(len(layout))
    )
    for quota, (_, algorithm) in zip(arranged, layout, strict=True):
        if quota is not None and quota.algorithm != algorithm:
            return None
    return arranged


def shape_error(
    name: str | None, layout: Layout, quotas: Sequence[_core.Quota | None], advice: str
) -> ValueError:
    """Says both shapes, and what to do."""
    whose = "this limiter" if name is None else f"limiter {name!r}"
    return ValueError(
        f"{whose} keeps {_shape(layout)}, but these quotas are "
        f"{_shape(layout_of(quotas))}: {advice}"
    )


def _shape(layout: Layout) -> str:
    places = (f"{name}: {algorithm}" if name else algorithm for name, algorithm in layout)
    return f"{len(layout)} quota{'s' if len(layout) != 1 else ''} ({'; '.join(places)})"
