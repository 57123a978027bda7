"""Numbers and times in words, as a person would say them."""

from __future__ import annotations

_TIMES = (
    (365.25 * 86400, "year"),
    (86400.0, "day"),
    (3600.0, "hour"),
    (60.0, "minute"),
    (1.0, "second"),
)
_SMALL_TIMES = ((1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1024.0**3, "GB"), (1024.0**2, "MB"), (1024.0, "KB"))


def number(value: float) -> str:
    """Three significant digits, more where the number is whole; thousands are parted."""
    if value == round(value):
        return f"{round(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def plural(value: float, word: str) -> str:
    """`1 unit`, `20 units`."""
    return f"{number(value)} {word}" if value == 1 else f"{number(value)} {word}s"


def duration(seconds: float) -> str:
    """`200 ms`, `1.5 seconds`, `2 minutes`, `1 day 2 hours`: two parts at most."""
    if seconds == 0:
        return "0 seconds"
    if seconds < 1:
        for size, unit in _SMALL_TIMES:
            if seconds >= size * 0.9995:
                return f"{number(float(f'{seconds / size:.3g}'))} {unit}"
        return f"{seconds:.3g} seconds"
    for index, (size, unit) in enumerate(_TIMES):
        if seconds < size:
            continue
        if unit == "second":
            return plural(float(f"{seconds:.3g}"), "second")
        whole = int(seconds // size)
        below, below_unit = _TIMES[index + 1]
        rest = round((seconds - whole * size) / below)
        if rest * below >= size:  # rounded up to a whole one, perhaps of the unit above
            return duration((whole + 1) * size)
        said = plural(whole, unit)
        return f"{said} {plural(rest, below_unit)}" if rest else said
    raise AssertionError("every time of a second and more has a unit")


def size(units: float) -> str:
    """Bytes in KB and MB of 1024."""
    for factor, unit in _SIZES:
        if units >= factor:
            return f"{number(float(f'{units / factor:.4g}'))} {unit}"
    return plural(units, "byte")


def units(value: float, name: str | None) -> str:
    """An amount in what the quota counts."""
    if name == "bytes":
        return size(value)
    word = name[:-1] if name and name.endswith("s") else "unit"
    return plural(value, word)
