"""Addresses, and the networks they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

__all__ = ["UNKNOWN", "Address", "Proxies", "Trusted", "address_of", "grouping", "trusted"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Proxies = str | Network | Address | Iterable[str | Network | Address]

UNKNOWN = "unknown"  # the key of a peer that has no address, as on a Unix socket

_CACHED = 4096  # addresses whose key is kept, so that a million of them take no more
_LONGEST = 64  # characters; no address is as long

# This host, the networks that are nobody's on the internet, and the links of a machine.
_PRIVATE = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)


def address_of(text: object) -> Address | None:
    """The address that a text is, or None. That of an IPv4 host in IPv6 clothes is its own, so
    that nobody is two; a zone (`%eth0`), which could be any text, is no part of one."""
    if not isinstance(text, str) or len(text) > _LONGEST or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def grouping(ipv6_prefix: int = 64) -> Callable[[str | Address], str]:
    """Makes the function from the text of a peer, or an address, to its key: an IPv4 address is
    its own, an IPv6 one is its network of that prefix, which one subscriber has to itself. What is
    no address is its own key, and no text is "unknown". ValueError unless the prefix is 1 to 128.
    """
    if isinstance(ipv6_prefix, bool) or not isinstance(ipv6_prefix, int):
        raise TypeError(
            f"ipv6_prefix is a number of bits, an int, not {type(ipv6_prefix).__name__}"
        )
    if not 1 <= ipv6_prefix <= 128:
        raise ValueError(f"ipv6_prefix is 1 to 128 bits, not {ipv6_prefix}")

    hosts = 128 - ipv6_prefix  # bits

    @lru_cache(maxsize=_CACHED)
    def key_of(host: str | Address) -> str:
        if isinstance(host, str):
            address = address_of(host.partition("%")[0])
            if address is None:
                return host or UNKNOWN
        else:
            address = host
        if address.version == 4:
            return str(address)
        # as IPv6Network writes it, which takes five times as long
        return f"{IPv6Address(int(address) >> hosts << hosts)}/{ipv6_prefix}"

    return key_of


class Trusted:
    """Who is believed: networks, and whether a peer without an address is."""

    __slots__ = ("_networks", "unix")

    def __init__(self, networks: Iterable[Network], unix: bool) -> None:
        self._networks = tuple(networks)
        self.unix = unix

    def __bool__(self) -> bool:
        return self.unix or bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def trusted(proxies: Proxies) -> Trusted:
    """What `trusted_proxies=` says: networks and addresses, "private", "unix", one or several.

    ValueError for what is none of them, and for a network of all addresses: behind that,
    anybody could choose who he is.
    """
    given = [proxies] if isinstance(proxies, str | Network | Address) else list(proxies)
    networks: list[Network] = []
    for one in given:
        if one == "private":
            networks.extend(ip_network(text) for text in _PRIVATE)
        elif one != "unix":
            networks.append(_network(one))
    return Trusted(networks, "unix" in given)


def _network(given: object) -> Network:
    if not isinstance(given, str | Network | Address):
        raise TypeError(
            "trusted_proxies are networks as '10.0.0.0/8', 'private' or 'unix', "
            f"not {type(given).__name__}"
        )
    try:
        network = ip_network(given)
    except ValueError as error:
        raise ValueError(
            f"trusted_proxies: {given!r} is no network as '10.0.0.0/8', nor 'private' or 'unix': "
            f"{error}"
        ) from None
    if network.prefixlen == 0:
        raise ValueError(f"trusted_proxies: {given!r} is everybody, who could be anybody then")
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    # peers of such a network are known by their IPv4 address
    if mapped is not None and network.prefixlen > 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
