"""What proxies write about the client: X-Forwarded-For, Forwarded (RFC 7239) and X-Real-IP.

Each proxy adds its own peer at the right, and what stands left of that is whatever it was sent.
So all are read from the right, by one hop after the other, as long as a hop is a trusted proxy.
What is not well-formed says nothing, and ends the reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from .networks import Address, Trusted, address_of

__all__ = ["HEADERS", "client_of"]

HEADERS = ("x-forwarded-for", "forwarded", "x-real-ip")

_HOPS = 32  # no chain of trusted proxies is longer
_PIECES = 8  # of one Forwarded element: its quoted strings may have commas

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_PAIR = rf"{_TOKEN}=(?:{_TOKEN}|{_QUOTED})"
_ELEMENT = re.compile(rf"{_PAIR}(?:;{_PAIR})*;?", re.ASCII)
_EACH = re.compile(rf"({_TOKEN})=({_TOKEN}|{_QUOTED})", re.ASCII)
# an address as proxies write it, with the port that it may have
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?", re.ASCII)


def client_of(headers: Iterable[Any], proxies: Trusted, only: str | None) -> Address | None:
    """The client that a trusted peer tells of; None where the headers leave it at the peer.

    `only` is the one header that is read. Without it each may speak, but where two speak of
    different clients neither is believed: one of them is the client's own.
    """
    lines = _lines(headers, HEADERS if only is None else (only,))
    told = [_walked(_hops(name, values), proxies) for name, values in lines.items()]
    found = [one for one in told if one is not None]
    # a proxy that tells of the proxy before it has nothing against what another header tells
    clients = {one for one in found if one not in proxies} or set(found)
    return clients.pop() if len(clients) == 1 else None


def _lines(headers: Iterable[Any], names: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        text = name.lower().decode("latin-1")
        if text in names:
            found.setdefault(text, []).append(value.decode("latin-1"))
    return found


def _walked(hops: Iterator[Address | None], proxies: Trusted) -> Address | None:
    """The first hop from the right that is no trusted proxy; where all are, the last of them."""
    last = None
    for _, hop in zip(range(_HOPS), hops, strict=False):
        if hop is None:
            break
        last = hop
        if hop not in proxies:
            break
    return last


def _hops(name: str, values: list[str]) -> Iterator[Address | None]:
    """The hops from the right; None for one that is not well-formed, or is not told."""
    if name == "x-real-ip":
        same = {value.strip(" \t") for value in values}
        yield address_of(same.pop()) if len(same) == 1 else None
        return
    read = _forwarded if name == "forwarded" else _listed
    for value in reversed(values):
        yield from read(value)


def _listed(value: str) -> Iterator[Address | None]:
    """X-Forwarded-For: addresses. Some proxies add the port."""
    for text in reversed(value.rsplit(",", _HOPS)):
        hop = text.strip(" \t")
        if hop:
            yield address_of(hop) or _node(hop)


def _forwarded(value: str) -> Iterator[Address | None]:
    """Forwarded: the node of `for=` of each element. The shortest piece at the right end that is
    an element is one: it is what the last proxy wrote, whatever quote was opened before it."""
    pieces = value.rsplit(",", _HOPS * _PIECES)
    while pieces:
        text = pieces.pop()
        tried = 1
        while text.strip(" \t") and not (element := _ELEMENT.fullmatch(text.strip(" \t"))):
            if not pieces or tried == _PIECES:
                yield None
                return
            text = f"{pieces.pop()},{text}"
            tried += 1
        if text.strip(" \t"):
            yield _for(element.group())  # type: ignore[union-attr]


def _for(element: str) -> Address | None:
    pairs = [(name.lower(), value) for name, value in _EACH.findall(element)]
    if len({name for name, _ in pairs}) != len(pairs):
        return None
    node = dict(pairs).get("for", "")
    return _node(re.sub(r"\\(.)", r"\1", node[1:-1]) if node.startswith('"') else node)


def _node(text: str) -> Address | None:
    """An IPv4 address, or an IPv6 one in brackets, with or without a port."""
    match = _NODE.fullmatch(text)
    if match is None or int(match[3] or 0) > 65535:
        return None
    address = address_of(match[1] or match[2])
    return address if match[1] is None or ":" in match[1] else None
