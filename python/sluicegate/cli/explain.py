"""What a quota means, in words and in figures. Pure: reads no clock and prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from sluicegate import _core

from .words import duration, number, units

NAMES = {
    "gcra": "gcra, a token bucket",
    "fixed-window": "fixed window",
    "sliding-window": "sliding window",
    "sliding-log": "sliding log",
}
DECISIONS = 200_000  # of one simulation, about
GROUPS = 10_000  # more detail than a plot shows
LOG_EXACT = 256  # entries a key of which the log keeps the exact time


def rate_words(rate: float, name: str | None) -> str:
    """A rate in the unit in which it is easiest to grasp: `1.67 messages a second`.

    An empty name leaves out what is counted: `1.67 a second`.
    """
    units_of_time = ((1, "second"), (60, "minute"), (3600, "hour"), (86400, "day"))
    seconds, unit = next(
        (one for one in units_of_time if rate * one[0] >= 0.9999), units_of_time[-1]
    )
    amount = float(f"{rate * seconds:.4g}")
    said = number(amount) if name == "" else units(amount, name)
    return f"{said} a{'n' if unit == 'hour' else ''} {unit}"


def quota_text(quota: _core.Quota) -> str:
    """A quota as a rate string says it, in its own units."""
    period = duration(quota.period)
    amount = _amount(quota.limit, quota.name)
    if period in ("1 second", "1 minute", "1 hour", "1 day"):
        text = f"{amount}/{period.removeprefix('1 ')}"
    else:
        text = f"{amount} per {period}"
    if quota.burst != quota.limit:
        text += f" burst {_amount(quota.burst, quota.name)}"
    if quota.algorithm != "gcra":
        text += f" using {quota.algorithm}"
    return f"{quota.name}: {text}" if quota.name and quota.name != "bytes" else text


def _amount(value: int, name: str | None) -> str:
    if name == "bytes":
        for factor, unit in ((1024**3, "GB"), (1024**2, "MB"), (1024, "KB"), (1, "B")):
            if value % factor == 0:
                return f"{value // factor}{unit}"
    return str(value)


def promise(quota: _core.Quota) -> str:
    """What the algorithm promises, with this quota's numbers."""
    limit = units(quota.limit, quota.name)
    period = duration(quota.period)
    if quota.algorithm == "gcra":
        rate = rate_words(quota.limit / quota.period, quota.name)
        return f"in any span of time at most {units(quota.burst, quota.name)}, and {rate} on top"
    if quota.algorithm == "fixed-window":
        return f"at most {limit} in a window of {period}, which starts at a key's first event"
    if quota.algorithm == "sliding-window":
        return f"the count of two windows of {period}, weighted by overlap, never above {limit}"
    exact = "to the event"
    if quota.limit > LOG_EXACT:
        span = duration(quota.period / 255)
        exact = f"counted in spans of {span}, so that it only ever refuses longer"
    return f"at most {limit} in any {period}, {exact}"


def facts(quota: _core.Quota) -> list[tuple[str, str]]:
    """Rows of a label and what it is."""
    rate = quota.limit / quota.period
    period = duration(quota.period)
    rows = [
        ("algorithm", NAMES[quota.algorithm]),
        ("at once", units(quota.burst, quota.name)),
        ("in the long run", rate_words(rate, quota.name)),
    ]
    if quota.algorithm == "gcra":
        interval = quota.period / quota.limit
        if quota.name != "bytes":
            rows.append(("one comes back", f"every {duration(interval).removeprefix('1 ')}"))
        rows.append(("from empty to full", duration(interval * quota.burst)))
    elif quota.algorithm == "fixed-window":
        rows += [("all come back", f"when the window ends, {period} after it began")]
    elif quota.algorithm == "sliding-window":
        rows += [("they come back", f"as the last window slides out, over {period}")]
    else:
        rows += [("each comes back", f"{period} after it was spent")]
    rows.append(("promise", promise(quota)))
    if quota.shadow:
        rows.append(("shadow", "counted and reported, holds nothing back"))
    return rows


def cost_of(quota: _core.Quota, size: int) -> int:
    """What one event of `size` bytes takes of a quota."""
    return size if quota.name == "bytes" else 1


def together(quotas: Sequence[_core.Quota], size: int) -> str | None:
    """Which quota binds when they hold at once; None where one stands alone."""
    held = [quota for quota in quotas if not quota.shadow]
    if len(held) < 2:
        return None

    def burst(quota: _core.Quota) -> float:
        return quota.burst / cost_of(quota, size)

    def rate(quota: _core.Quota) -> float:
        return quota.limit / quota.period / cost_of(quota, size)

    first, last = min(held, key=burst), min(held, key=rate)
    return (
        "All of them admit an event, or none is charged. "
        f"At once {quota_text(first)} binds ({number(int(burst(first)))}), "
        f"in the long run {quota_text(last)} ({rate_words(rate(last), '')})."
    )


@dataclass(frozen=True)
class Simulation:
    """A flood on a clock that is moved by hand, decided by the C core."""

    rate: float  # events sent a second
    span: float  # seconds
    times: list[float]  # seconds since the start
    sent: list[float]  # events until then
    admitted: list[float]  # by all quotas together
    alone: list[list[float] | None]  # by each quota, were it the only one; None: too many


def default_span(quotas: Sequence[_core.Quota]) -> float:
    """Long enough to see the burst go and the long run settle, in seconds."""
    return max(
        2.5 * max(quota.period, quota.period * quota.burst / quota.limit) for quota in quotas
    )


def default_rate(quotas: Sequence[_core.Quota], span: float, size: int) -> float:
    """More than any of the quotas admits for long, and enough to empty the burst.

    Twice the rate shows a bucket; a window shows its steps when it is soon used up.
    """
    rates = [
        quota.limit / quota.period / cost_of(quota, size) * (1 if quota.algorithm == "gcra" else 3)
        for quota in quotas
    ]
    bursts = [quota.burst / cost_of(quota, size) for quota in quotas]
    return max(2 * max(rates), 10 * max(bursts) / span)


def simulate(
    quotas: Sequence[_core.Quota],
    *,
    rate: float | None = None,
    span: float | None = None,
    size: int = 256,
    steps: int = 240,
) -> Simulation:
    """Flood the quotas: `rate` events a second of `size` bytes, for `span` seconds.

    Where very many come through, several go as one event of their common cost, at most a
    quarter of the smallest burst. ValueError when it would still take too many decisions.
    """
    wanted = span
    span = span or default_span(quotas)
    most = _longest_span(quotas, size)
    if span > most:
        if wanted is not None:
            raise ValueError(
                f"a flood of {duration(span)} takes too many decisions here: "
                f"at most {duration(most)}"
            )
        span = most
    rate = rate or default_rate(quotas, span, size)
    admitted = _flood(quotas, rate, span, size, steps)
    alone = [
        _flood([quota], rate, span, size, steps) if span <= _longest_span([quota], size) else None
        for quota in quotas
    ]
    times = [span * step / steps for step in range(steps + 1)]
    sent = [float(int(rate * at) + 1) for at in times]
    return Simulation(rate, span, times, sent, admitted, alone)


def _bursts(quotas: Sequence[_core.Quota], size: int) -> list[float]:
    return [quota.burst / cost_of(quota, size) for quota in _holding(quotas)]


def _most(quotas: Sequence[_core.Quota], size: int, span: float) -> float:
    """No more events than this come through in so many seconds (windows: about)."""
    return min(
        (quota.burst + quota.limit / quota.period * span) / cost_of(quota, size)
        for quota in _holding(quotas)
    )


def _holding(quotas: Sequence[_core.Quota]) -> list[_core.Quota]:
    return [quota for quota in quotas if not quota.shadow] or list(quotas)


def _group(quotas: Sequence[_core.Quota], size: int, span: float) -> int:
    coarsest = min(_bursts(quotas, size)) / 4
    return max(1, int(min(coarsest, _most(quotas, size, span) / GROUPS)))


def _longest_span(quotas: Sequence[_core.Quota], size: int) -> float:
    """Seconds of flood that at most DECISIONS groups come through in."""
    coarsest = max(1, int(min(_bursts(quotas, size)) / 4))
    rate = min(quota.limit / quota.period / cost_of(quota, size) for quota in _holding(quotas))
    return DECISIONS * coarsest / rate


def _flood(
    quotas: Sequence[_core.Quota], rate: float, span: float, size: int, steps: int
) -> list[float]:
    """Events admitted until each step. A refused one says when to come again, and all that
    is sent until then is refused with it, so that only what matters is decided."""
    clock = _core.Clock()
    table = _core.Table([quota.algorithm for quota in quotas], clock=clock)
    names = [f"q{i}" for i in range(len(quotas))]
    limiter = _core.Limiter(
        table, [_renamed(quota, name) for quota, name in zip(quotas, names, strict=True)]
    )
    group = _group(quotas, size, span)
    cost = {name: cost_of(quota, size) * group for quota, name in zip(quotas, names, strict=True)}
    through: list[float] = []
    count = sent = 0
    while True:
        at = (sent + group - 1) / rate  # when the last of the next group is there
        while len(through) <= steps and span * len(through) / steps < at:
            through.append(float(count))
        if len(through) > steps:
            return through
        clock.ns = round(at * 1e9)
        decision = limiter.hit_nowait("flood", cost)
        if decision:
            sent += group
            count += group
        elif decision.retry_after == inf:
            return through + [float(count)] * (steps + 1 - len(through))
        else:
            # The first event at or after that time ends the next group.
            again = ceil((at + decision.retry_after) * rate * (1 - 1e-12))
            sent = max(sent + 1, again - group + 1)


def _renamed(quota: _core.Quota, name: str) -> _core.Quota:
    return _core.Quota(
        quota.limit,
        quota.period,
        burst=quota.burst if quota.algorithm == "gcra" else None,
        algorithm=quota.algorithm,
        name=name,
        shadow=quota.shadow,
    )
