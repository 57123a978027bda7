"""Clients by address: what proxies say, who is believed, and who pretends."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calling import http_scope
from sluicegate.identity import address

CLIENT = "198.51.100.7"
PROXY = ("10.0.0.1", 80)
Header = tuple[str, str]


def key(headers: list[Header], client: Any = PROXY, trust: Any = "private", **more: Any) -> str:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return address(trust, **more)(http_scope(client=client, headers=raw))


# ---- without proxies


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("192.0.2.1", 80), "192.0.2.1"),
        (["192.0.2.1", 80], "192.0.2.1"),
        (("::ffff:192.0.2.1", 80), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 80), "2001:db8:1:2::/64"),
        (("2001:DB8:1:2::9", 80), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 80), "fe80::/64"),
        (("testclient", 80), "testclient"),
        (("127.1", 80), "127.1"),
        (("", 0), "unknown"),
        ((None, 0), "unknown"),
        ((), "unknown"),
        (None, "unknown"),
        (7, "unknown"),
        ((7, 80), "7"),
    ],
)
def test_the_key_is_the_peers_address(client: Any, expected: str) -> None:
    by_address = address()
    lies = [(b"x-forwarded-for", b"9.9.9.9"), (b"forwarded", b"for=9.9.9.9")]
    assert by_address(http_scope(client=client, headers=lies)) == expected
    assert by_address({"client": client}) == expected


def test_without_a_client_at_all() -> None:
    assert address()({}) == "unknown"
    assert address("unix")({}) == "unknown"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(48, "2001:db8:1::/48"), (56, "2001:db8:1::/56"), (128, "2001:db8:1:2::9/128")],
)
def test_the_prefix_of_ipv6(prefix: int, expected: str) -> None:
    by_address = address(ipv6_prefix=prefix)
    assert by_address({"client": ("2001:db8:1:2::9", 1)}) == expected
    assert by_address({"client": ("192.0.2.1", 1)}) == "192.0.2.1"


# ---- behind proxies


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "10.0.0.1"),
        ([("x-forwarded-for", CLIENT)], CLIENT),
        ([("X-Forwarded-For", f" {CLIENT}\t")], CLIENT),
        ([("x-forwarded-for", f"{CLIENT}:5678")], CLIENT),
        ([("x-forwarded-for", "::ffff:198.51.100.7")], CLIENT),
        ([("x-forwarded-for", "2001:db8::1")], "2001:db8::/64"),
        ([("x-forwarded-for", "[2001:db8::1]")], "2001:db8::/64"),
        ([("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::/64"),
        ([("x-forwarded-for", f"9.9.9.9, {CLIENT}")], CLIENT),
        ([("x-forwarded-for", f"9.9.9.9, {CLIENT}, 10.9.9.9, 192.168.1.1")], CLIENT),
        ([("x-forwarded-for", "9.9.9.9"), ("x-forwarded-for", CLIENT)], CLIENT),
        ([("x-forwarded-for", f"junk, {CLIENT},,")], CLIENT),
        ([("x-forwarded-for", "10.2.2.2")], "10.2.2.2"),
        ([("x-forwarded-for", "10.3.3.3, 10.2.2.2")], "10.3.3.3"),
        ([("x-forwarded-for", "junk, 10.2.2.2")], "10.2.2.2"),
        ([("forwarded", f"for={CLIENT}")], CLIENT),
        ([("forwarded", f'For="{CLIENT}:5678";proto=https;by=10.0.0.1')], CLIENT),
        ([("forwarded", 'for="[2001:db8::1]:443"')], "2001:db8::/64"),
        ([("forwarded", f"for=9.9.9.9, for={CLIENT}")], CLIENT),
        ([("forwarded", f'for="9.9.9.9, for={CLIENT}')], CLIENT),
        ([("forwarded", 'for="9.9.9.9'), ("forwarded", f"for={CLIENT}")], CLIENT),
        ([("forwarded", f'for={CLIENT};by="_a, b", for=10.2.2.2')], CLIENT),
        ([("x-real-ip", CLIENT)], CLIENT),
        ([("x-real-ip", CLIENT), ("x-real-ip", CLIENT)], CLIENT),
        ([("x-real-ip", "2001:db8::1")], "2001:db8::/64"),
        ([("x-real-ip", CLIENT), ("x-forwarded-for", f"9.9.9.9, {CLIENT}")], CLIENT),
        # the proxy next to us tells of the one before it, which tells of the client
        ([("x-real-ip", "10.2.2.2"), ("x-forwarded-for", f"{CLIENT}, 10.2.2.2")], CLIENT),
    ],
)  # fmt: skip
def test_the_client_is_read_from_the_right(headers: list[Header], expected: str) -> None:
    assert key(headers) == expected


@pytest.mark.parametrize(
    "header",
    [
        *(("x-forwarded-for", value) for value in (
            "", ",", "junk", "unknown", "_hidden", "198.51.100", "0198.51.100.7", "198.51.100.7:x",
            "198.51.100.7:99999", "198.51.100.7/32", "[2001:db8::1", "2001:db8::1%eth0", "unix:",
            "[198.51.100.7]", "\xff\xfe", "９.9.9.9".encode().decode("latin-1"), "3325256711",
            "for=198.51.100.7", '"198.51.100.7"', "a" * 100_000, "198.51.100.7\x00",
        )),
        *(("forwarded", value) for value in (
            "", "junk", "for", "for=", "for=unknown", "for=_hidden", "for=2001:db8::1",
            "for=[2001:db8::1]", 'for="2001:db8::1"', "for=198.51.100.7:80", "by=198.51.100.7",
            "for=198.51.100.7;for=198.51.100.7", 'for="198.51.100.7', "for=198.51.100.7;;by=_a",
            "for = 198.51.100.7", "198.51.100.7", '"' * 50_000, "for=_a;" * 10_000,
        )),
        *(("x-real-ip", value) for value in (
            "", "junk", "198.51.100.7, 198.51.100.8", "198.51.100.7:80", "198.51.100.7/24",
        )),
    ],
)  # fmt: skip
def test_what_is_not_well_formed_leaves_it_at_the_proxy(header: Header) -> None:
    assert key([header]) == "10.0.0.1"


def test_two_real_ips_say_nothing() -> None:
    assert key([("x-real-ip", CLIENT), ("x-real-ip", "9.9.9.9")]) == "10.0.0.1"


def test_a_header_that_the_proxy_does_not_set_chooses_no_key() -> None:
    set_by_proxy = ("x-forwarded-for", CLIENT)
    for forged in (("forwarded", "for=9.9.9.9"), ("x-real-ip", "9.9.9.9")):
        assert key([set_by_proxy, forged]) == "10.0.0.1"
        assert key([set_by_proxy, forged], header="X-Forwarded-For") == CLIENT
        assert key([forged], header="x-forwarded-for") == "10.0.0.1"


def test_networks_addresses_and_sockets_that_are_trusted() -> None:
    told = [("x-forwarded-for", CLIENT)]
    for trust in (
        "10.0.0.0/8", ["10.0.0.1"], [IPv4Address("10.0.0.1")], IPv4Network("10.0.0.0/30"),
        ("192.0.2.0/24", "private"), ["::ffff:10.0.0.0/104"],
    ):  # fmt: skip
        assert key(told, trust=trust) == CLIENT
    assert key(told, ("::ffff:10.0.0.1", 80)) == CLIENT
    assert key(told, ("fe80::1%eth0", 80)) == CLIENT
    assert key(told, ("10.0.0.1", 80), trust="192.0.2.0/24") == "10.0.0.1"
    assert key(told, ("2001:db8::1", 80), trust=[IPv6Address("2001:db8::1")]) == CLIENT
    for peer in (None, ("", 0)):
        assert key(told, peer, "unix") == CLIENT
        assert key(told, peer, "private") == "unknown"
    assert key(told, ("testclient", 1), ["unix", "private"]) == "testclient"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"trusted_proxies": "10.0.0.1/8"}, ValueError, "10.0.0.1/8"),
        ({"trusted_proxies": ["*"]}, ValueError, "nor 'private' or 'unix'"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, ValueError, "everybody"),
        ({"trusted_proxies": ["::/0"]}, ValueError, "everybody"),
        ({"trusted_proxies": [10]}, TypeError, "not int"),
        ({"ipv6_prefix": 0}, ValueError, "1 to 128"),
        ({"ipv6_prefix": 129}, ValueError, "1 to 128"),
        ({"ipv6_prefix": True}, TypeError, "not bool"),
        ({"header": "x-client-ip"}, ValueError, "x-forwarded-for"),
        ({"header": 1}, TypeError, "not int"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says.replace("*", r"\*").replace("(", r"\(")):
        address(**arguments)


# ---- attacks

names = st.sampled_from(["x-forwarded-for", "forwarded", "x-real-ip", "X-FORWARDED-FOR", "via"])
pieces = st.sampled_from(
    ["9.9.9.9", "10.2.2.2", "for=", "for=9.9.9.9", ",", ";", '"', "\\", " ", "[", "]", ":80",
     "2001::", "by=", "unknown", "_x", "\t", "=", "::ffff:9.9.9.9"]
)  # fmt: skip
values = st.one_of(
    st.binary(max_size=60), st.lists(pieces, max_size=12).map(lambda parts: "".join(parts).encode())
)
forged = st.lists(st.tuples(names.map(str.encode), values), max_size=5)
addresses = st.one_of(st.ip_addresses(), st.text(max_size=20), st.none(), st.integers())


@given(
    client=st.one_of(st.none(), st.integers(), st.tuples(), st.tuples(addresses.map(
        lambda one: str(one) if hasattr(one, "packed") else one), st.integers())),
    headers=forged,
    trust=st.sampled_from([(), "private", "unix", ["unix", "private"]]),
)  # fmt: skip
def test_no_header_and_no_peer_raises(client: Any, headers: Any, trust: Any) -> None:
    found = address(trust)(http_scope(client=client, headers=headers))
    assert isinstance(found, str) and found


@given(headers=forged, client=st.ip_addresses(v=4))
def test_nobody_chooses_his_key_without_a_proxy(headers: Any, client: IPv4Address) -> None:
    """Whoever is not a trusted proxy is himself, whatever he sends."""
    by_address = address("10.0.0.0/8")
    found = by_address(http_scope(client=(str(client), 1), headers=headers))
    if client not in ip_network("10.0.0.0/8"):
        assert found == str(client)


@given(
    headers=forged,
    appended=st.booleans(),
    name=st.sampled_from(["x-forwarded-for", "forwarded", "x-real-ip"]),
)
def test_nobody_chooses_his_key_behind_a_proxy(headers: Any, appended: bool, name: str) -> None:
    """The proxy adds the true client to one header, as a line or at the end of one, or sets it:
    the key is the client's, or (where another header disagrees) the proxy's. With the header
    named, it is the client's."""
    told = f"for={CLIENT}" if name == "forwarded" else CLIENT
    own = [pair for pair in headers if pair[0].lower() == name.encode()]
    others = [pair for pair in headers if pair[0].lower() != name.encode()]
    if name == "x-real-ip":
        sent = [*others, (name.encode(), told.encode())]
    elif appended and own:
        before = b", ".join(value for _, value in own)
        sent = [*others, (name.encode(), before + b", " + told.encode())]
    else:
        sent = [*own, *others, (name.encode(), told.encode())]
    scope = http_scope(client=PROXY, headers=sent)
    assert address("private")(scope) in (CLIENT, "10.0.0.1")
    assert address("private", header=name)(scope) == CLIENT


@given(st.ip_addresses(v=6), st.integers(1, 128))
def test_one_subscriber_is_one_client(one: IPv6Address, prefix: int) -> None:
    by_address = address(ipv6_prefix=prefix)
    other = IPv6Address(int(one) ^ (1 << (128 - prefix)) - 1)
    keys = [by_address({"client": (str(each), 1)}) for each in (one, other)]
    mapped = [each for each in (one, other) if each.ipv4_mapped is not None]
    assert mapped or keys[0] == keys[1]
    assert by_address({"client": (one.exploded.upper(), 1)}) == keys[0]
