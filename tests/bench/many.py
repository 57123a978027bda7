"""A million keys in random order: time against a dict's, and memory a key."""

from __future__ import annotations

from collections.abc import Iterator

from .harness import worker
from .peers import spread_peers
from .rows import Row, Topic

REFERENCE = "d[k] += 1 over the same keys"


def rows_of(what: str, found: dict[str, object], target: float | None, peer: bool) -> Row:
    ratio, each, info = found["ratio"], found["bytes"], found["info"]
    assert isinstance(ratio, float) and isinstance(each, float) and isinstance(info, dict)
    info["bytes_a_key"] = round(each, 1)
    return Row("many", what, ratio, "x", REFERENCE, target, peer=peer, info=info)


def measure(rounds: int, quick: bool) -> Iterator[Row]:
    keys = 1_000_000
    found = worker("spread_over", None, keys, rounds)
    yield rows_of("sync hit over 1,000,000 keys in random order", found, 0.6, False)


def peers(rounds: int, quick: bool) -> Iterator[Row]:
    for name, why in spread_peers():
        if why is not None:
            yield Row("many", name, None, "x", REFERENCE, peer=True, missing=why)
            continue
        try:
            found = worker("spread_over", name, 200_000 if quick else 1_000_000, rounds)
        except RuntimeError as error:
            yield Row("many", name, None, "x", REFERENCE, peer=True, missing=str(error))
            continue
        yield rows_of(name, found, None, True)


TOPIC = Topic("many", "A million keys in random order", measure, peers)
