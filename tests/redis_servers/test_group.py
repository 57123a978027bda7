"""One accident of servers that work together does not reach the tests that follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from redis_servers.group import Group


class Quarrelling:
    """Heals when `agree` says so."""

    def __init__(self) -> None:
        self.agree = True

    def heal(self) -> None:
        assert self.agree, "the nodes do not agree"


def test_what_does_not_heal_is_started_anew_but_not_for_ever(
    pytestconfig: pytest.Config,
) -> None:
    ended: list[Quarrelling] = []

    @contextmanager
    def start() -> Iterator[Quarrelling]:
        made = Quarrelling()
        yield made
        ended.append(made)

    with closing(Group(start, pytestconfig)) as group:
        first = group.healed()
        assert group.healed() is first
        first.agree = False
        second = group.healed()
        assert second is not first and ended == [first]
        second.agree = False
        third = group.healed()
        third.agree = False
        with pytest.raises(AssertionError, match="3 times"):
            group.healed()
    assert ended == [first, second, third]
