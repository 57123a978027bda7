"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from sluicegate.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5 hours", 5400),
        ("2d", 172800),
        (" 1 W", 604800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "1x", "h", "1h x", "inf", "nan", "9" * 30])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        seconds_of(text)
