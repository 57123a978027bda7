"""What Hypothesis draws quotas, costs and times from."""

from __future__ import annotations

from hypothesis import strategies as st

from model.pair import core_quota
from reference import ALGORITHMS, COST_MAX, Quota

YEARS_10 = 316_224_000.0
PERIODS = [0.001, 0.1, 1 / 3, 1.0, 1.0000005, 7.0, 60.0, 3600.0, 86400.0, 3.15e7, YEARS_10]

limits = st.one_of(
    st.integers(1, 20), st.integers(1, 3000), st.sampled_from([10**7, 2**30, COST_MAX])
)
periods = st.one_of(st.sampled_from(PERIODS), st.floats(0.001, 1e5))
small_costs = st.integers(0, 6)


def fits(quota: Quota | None) -> bool:
    """Whether the C takes it: rate and filling time have bounds."""
    try:
        core_quota(quota)
    except ValueError:
        return False
    return True


@st.composite
def quotas(draw: st.DrawFn, algorithm: str | None = None, place: int = 0) -> Quota:
    kind = algorithm or draw(st.sampled_from(ALGORITHMS))
    burst = draw(st.one_of(st.just(0), limits)) if kind == "gcra" else 0
    name = f"q{place}" if draw(st.booleans()) else None
    return Quota(draw(limits), draw(periods), burst, kind, name, draw(st.integers(0, 5)) == 0)


@st.composite
def rows(draw: st.DrawFn, kinds: list[str]) -> list[Quota | None]:
    """One quota a place, now and then none."""
    return [
        None if draw(st.integers(0, 9)) == 0 else draw(quotas(kind, i).filter(fits))
        for i, kind in enumerate(kinds)
    ]


@st.composite
def costs(draw: st.DrawFn, row: list[Quota | None]) -> int | dict[str, int]:
    """Small ones, and those at the edge of a quota; at times by name."""
    edges = [1]
    for quota in row:
        if quota:
            edges += [quota.burst - 1, quota.burst, quota.burst + 1, quota.limit // 3, quota.limit]
    one = st.one_of(small_costs, st.sampled_from([min(e, COST_MAX) for e in edges]))
    names = [quota.name for quota in row if quota and quota.name]
    if not names:
        return draw(one)
    named = st.dictionaries(st.sampled_from(names), one)
    return draw(named) if draw(st.booleans()) else draw(one)
