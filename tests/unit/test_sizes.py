"""How large a message is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluicegate._core import COST_MAX
from sluicegate.websocket.sizes import size_of


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("é", 2),
        ("⚠️", 6),
        ("\ud800", 3),
        (b"\xff\x00", 2),
        (bytearray(5), 5),
        (memoryview(bytes(12)).cast("i"), 12),
        ({"text": "é", "n": [1, 2]}, len('{"text":"é","n":[1,2]}'.encode())),
        ([], 2),
        (None, 4),
        (12, 2),
    ],
)
def test_sizes(data: Any, size: int) -> None:
    assert size_of(data) == size


def test_what_json_cannot_tell_is_an_error() -> None:
    with pytest.raises(TypeError):
        size_of(object())


def test_what_is_nested_too_deeply_is_larger_than_any_limit() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert size_of(deep) == COST_MAX
    while deep:
        deep = deep[0]  # unlinked one by one: its own end would recurse, too
    assert json.dumps(deep) == "[]"
