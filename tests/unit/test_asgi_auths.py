"""Who a request is from: addresses, sessions, tokens and users, and those who pretend."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser

from calling import http_scope
from sluicegate.asgi.auths import EmptyInformation, create_jwt_auth, from_user
from sluicegate.asgi.auths.ip import client_ip
from sluicegate.asgi.auths.session import from_session

Headers = Iterable[tuple[bytes, bytes]]

KEY = "a key that is long enough for HS256, HS384 and HS512 alike, as RFC 7518 asks"
OTHER_KEY = KEY[::-1]


def token(claims: Any = None, key: str = KEY, algorithm: str = "HS256", **more: Any) -> str:
    return jwt.encode({"user": "ada"} if claims is None else claims, key, algorithm, **more)


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + text.encode("latin-1"))]


# ---- addresses


@pytest.mark.parametrize(
    ("client", "headers", "address"),
    [
        (("1.1.1.1", 80), [], "1.1.1.1"),
        (["1.1.1.1", 80], [], "1.1.1.1"),
        (("1.1.1.1", 80), [(b"x-real-ip", b"8.8.8.8")], "1.1.1.1"),
        (("1.1.1.1", 80), [(b"x-real-ip", b"junk")], "1.1.1.1"),
        (("127.0.0.1", 80), [(b"x-real-ip", b"8.8.8.8")], "8.8.8.8"),
        (("127.0.0.1", 80), [(b"X-Real-IP", b" 8.8.8.8\t")], "8.8.8.8"),
        (("::1", 80), [(b"x-real-ip", b"2606:4700:0000::1111")], "2606:4700::1111"),
        (("172.18.81.1", 80), [(b"x-real-ip", b"::ffff:8.8.8.8")], "8.8.8.8"),
        (("::ffff:127.0.0.1", 80), [(b"x-real-ip", b"8.8.8.8")], "8.8.8.8"),
        (("::ffff:1.1.1.1", 80), [(b"x-real-ip", b"8.8.8.8")], "1.1.1.1"),
        (("127.0.0.1", 80), [(b"x-real-ip", b"8.8.8.8"), (b"x-real-ip", b"8.8.8.8")], "8.8.8.8"),
        (("10.0.0.1", 80), [(b"x-forwarded-for", b"9.9.9.9"), (b"x-real-ip", b"8.8.8.8")],
         "8.8.8.8"),
    ],
)  # fmt: skip
async def test_client_ip(client: Any, headers: Headers, address: str) -> None:
    assert await client_ip(http_scope(client=client, headers=headers)) == (address, "default")


@pytest.mark.parametrize(
    "real_ip",
    [
        b"", b" ", b"junk", b"10.0.0.1", b"127.0.0.1", b"::1", b"8.8.8.8:80", b"[2606:4700::1111]",
        b"8.8.8.8, 1.1.1.1", b"8.8.8", b"8.8.8.8\x00", b"8.8.8.8%x", b"2606:4700::1111%9",
        b"08.8.8.8", b"0x8.8.8.8", b"134744072", b"\xff\xfe", "８.8.8.8".encode(), b"1" * 100_000,
        b"::ffff:10.0.0.1", b"unknown", b"_hidden", b"8.8.8.8/32", b"fe80::1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("client", [("127.0.0.1", 80), ("192.168.7.7", 80), ("::1", 80)])
async def test_an_address_that_is_not_usable_is_nobodys(client: Any, real_ip: bytes) -> None:
    for headers in (
        [(b"x-real-ip", real_ip)],
        [(b"x-real-ip", real_ip), (b"x-real-ip", b"9.9.9.9")],
    ):
        with pytest.raises(EmptyInformation):
            await client_ip(http_scope(client=client, headers=headers))


@pytest.mark.parametrize("client", [None, (), ("", 0), ("testclient", 50000), (None, None), 5])
async def test_without_an_address_at_the_other_end_no_header_is_believed(client: Any) -> None:
    for headers in ([], [(b"x-real-ip", b"8.8.8.8")]):
        with pytest.raises(EmptyInformation):
            await client_ip(http_scope(client=client, headers=headers))


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-client-ip", b"x-real-i"])
async def test_no_other_header_is_believed(name: bytes) -> None:
    scope = http_scope(client=("127.0.0.1", 80), headers=[(name, b"8.8.8.8")])
    with pytest.raises(EmptyInformation):
        await client_ip(scope)


# ---- sessions


@pytest.mark.parametrize(
    ("session", "found"),
    [
        ({"user": "ada"}, ("ada", "default")),
        ({"user": "ada", "group": "admin"}, ("ada", "admin")),
        ({"user": 42}, (42, "default")),
    ],
)
async def test_from_session(session: Any, found: Any) -> None:
    assert await from_session({"session": session}) == found


@pytest.mark.parametrize(
    "session",
    [
        {}, {"group": "admin"}, {"user": None}, {"user": ""}, {"user": True}, {"user": ["ada"]},
        {"user": "ada", "group": None}, {"user": "ada", "group": ["admin"]},
        {"user": "ada", "group": ""},
    ],
)  # fmt: skip
async def test_a_session_that_tells_nothing(session: Any) -> None:
    with pytest.raises(EmptyInformation):
        await from_session({"session": session})


async def test_no_session_at_all_is_a_fault_of_the_application() -> None:
    with pytest.raises(AssertionError, match="SessionMiddleware"):
        await from_session(http_scope())


# ---- tokens


async def test_a_token_in_the_authorization_header() -> None:
    auth = create_jwt_auth(KEY, ["HS256", "HS512"])
    for claims, found in (
        ({"user": "ada"}, ("ada", "default")),
        ({"user": "ada", "group": "admin"}, ("ada", "admin")),
        ({"user": 42, "exp": time.time() + 60}, (42, "default")),
    ):
        for algorithm in ("HS256", "HS512"):
            scope = http_scope(headers=bearer(token(claims, algorithm=algorithm)))
            assert await auth(scope) == found
    scope = http_scope(headers=[(b"Authorization", b"bearer  " + token().encode() + b" ")])
    assert await auth(scope) == ("ada", "default")


async def test_claims_of_other_names() -> None:
    auth = create_jwt_auth(KEY, "HS256", "sub", "role")
    scope = http_scope(headers=bearer(token({"sub": "ada", "role": "admin", "user": "eve"})))
    assert await auth(scope) == ("ada", "admin")
    with pytest.raises(EmptyInformation):
        await auth(http_scope(headers=bearer(token())))


async def test_a_token_in_the_query_a_cookie_or_a_subprotocol() -> None:
    auth = create_jwt_auth(
        KEY, ["HS256"], query_param="token", cookie="sid", subprotocol="access_token"
    )
    in_query = {"query_string": b"a=b&token=" + token({"user": "query"}).encode() + b"&c"}
    in_cookie = {
        "headers": [(b"cookie", b'a=b; broken; sid="%s"' % token({"user": "cookie"}).encode())]
    }
    in_subprotocol = {"subprotocols": ["chat", "access_token", token({"user": "subprotocol"})]}
    for scope, user in (
        (in_query, "query"),
        (in_cookie, "cookie"),
        (in_subprotocol, "subprotocol"),
        ({**in_subprotocol, **in_cookie, **in_query}, "query"),
        ({**in_query, "headers": bearer(token({"user": "header"}))}, "header"),
        ({**in_query, "headers": [(b"authorization", b"Basic YWRhOmFkYQ==")]}, "query"),
    ):
        assert await auth(http_scope(**scope)) == (user, "default")  # type: ignore[arg-type]
    # and nowhere where it was not asked for
    plain = create_jwt_auth(KEY, ["HS256"])
    for scope in (in_query, in_cookie, in_subprotocol):
        with pytest.raises(EmptyInformation):
            await plain(http_scope(**scope))  # type: ignore[arg-type]


@pytest.mark.parametrize("leeway", [0, 30])
async def test_leeway(leeway: float) -> None:
    auth = create_jwt_auth(KEY, ["HS256"], leeway=leeway)
    scope = http_scope(headers=bearer(token({"user": "ada", "exp": time.time() - 10})))
    if leeway:
        assert await auth(scope) == ("ada", "default")
    else:
        with pytest.raises(jwt.ExpiredSignatureError):
            await auth(scope)


def unsigned(claims: Any, header: Any = None, signature: bytes = b"") -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    header = {"alg": "none", "typ": "JWT"} if header is None else header
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"{part(text)}.{part(body)}.{part(signature)}"


ADMIN = {"user": "ada", "group": "admin"}
NESTED = b"[" * 20_000

BAD = {
    "expired": token({**ADMIN, "exp": time.time() - 1}),
    "not yet": token({**ADMIN, "nbf": time.time() + 86400}),
    "unsigned": unsigned(ADMIN),
    "unsigned in capitals": unsigned(ADMIN, {"alg": "NONE"}),
    "no algorithm": unsigned(ADMIN, {"typ": "JWT"}),
    "empty algorithm": unsigned(ADMIN, {"alg": ""}),
    "part of an algorithm": unsigned(ADMIN, {"alg": "HS"}),
    "algorithm is a list": unsigned(ADMIN, {"alg": ["HS256"]}),
    "algorithm is a dict": unsigned(ADMIN, {"alg": {"HS256": 1}}),
    "signed with nothing": unsigned(ADMIN, {"alg": "HS256"}),
    "signed with junk": unsigned(ADMIN, {"alg": "HS256"}, b"\0" * 32),
    "another key": token(ADMIN, OTHER_KEY),
    "another algorithm": token(ADMIN, algorithm="HS384"),
    "for another audience": token({**ADMIN, "aud": "another service"}),
    "cut": token(ADMIN)[:-4],
    "stripped": token(ADMIN).rpartition(".")[0] + ".",
    "swapped": ".".join((token(ADMIN).split(".")[0], token({"user": "eve"}).split(".")[1],
                         token(ADMIN).split(".")[2])),
    "detached": token(ADMIN, headers={"b64": False, "crit": ["b64"]}),
    "claims are a list": unsigned([1], {"alg": "HS256"}),
    "nested header": unsigned(ADMIN, NESTED),
    "nested claims": unsigned(NESTED, {"alg": "HS256"}),
    "header is no text": unsigned(ADMIN, b"\xff\xfe"),
    "header is a number": unsigned(ADMIN, b"5"),
    "dots": "....", "one dot": ".", "a word": "x", "two words": "a b", "not base64": "é.é.é",
    "long": "x" * 100_000, "null": "a\0b.c.d", "five parts": "a.b.c.d.e",
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_token_is_an_auth_error_wherever_it_is(bad: str) -> None:
    auth = create_jwt_auth(KEY, ["HS256"], query_param="t", cookie="c", subprotocol="p")
    for scope in (
        {"headers": bearer(bad)},
        {"query_string": b"t=" + bad.encode()},
        {"headers": [(b"cookie", b"c=" + bad.encode("latin-1"))]},
        {"subprotocols": ["p", bad]},
    ):
        with pytest.raises((EmptyInformation, jwt.PyJWTError)):
            await auth(http_scope(**scope))  # type: ignore[arg-type]


async def test_whatever_a_token_makes_pyjwt_raise_is_an_auth_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode(*given: Any, **options: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr(jwt, "decode", decode)
    with pytest.raises(jwt.InvalidTokenError) as raised:
        await create_jwt_auth(KEY, ["HS256"])(http_scope(headers=bearer(token())))
    assert isinstance(raised.value.__cause__, RecursionError)


@pytest.mark.parametrize(
    "claims",
    [
        {}, {"group": "admin"}, {"user": None}, {"user": ""}, {"user": True}, {"user": ["ada"]},
        {"user": {"id": 1}}, {"user": 1.5}, {"user": "ada", "group": None},
        {"user": "ada", "group": 5}, {"user": "ada", "group": ["admin"]},
        {"user": "ada", "group": ""},
    ],
)  # fmt: skip
async def test_a_good_token_with_odd_claims_is_never_a_group(claims: Any) -> None:
    with pytest.raises(EmptyInformation):
        await create_jwt_auth(KEY, ["HS256"])(http_scope(headers=bearer(token(claims))))


@pytest.mark.parametrize(
    "headers",
    [
        [], [(b"authorization", b"")], [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")], [(b"authorization", b"Basic YWRhOmFkYQ==")],
        [(b"authorization", b"\xff\xfe\x00")], [(b"authorization", token().encode())],
        [(b"authorization", b"Token " + token().encode())],
        [*bearer(token()), *bearer(token({"user": "eve"}))],
    ],
)  # fmt: skip
async def test_an_authorization_without_one_token_is_nobodys(headers: Any) -> None:
    with pytest.raises(EmptyInformation):
        await create_jwt_auth(KEY, ["HS256"])(http_scope(headers=headers))


@given(
    data=st.binary(max_size=200) | st.just(token().encode()),
    scheme=st.sampled_from([b"", b"Bearer ", b"bearer", b"Bearer  "]),
    query=st.binary(max_size=50),
    protocols=st.lists(st.sampled_from(["p", ""]) | st.text(max_size=20), max_size=4),
    client=st.sampled_from([("127.0.0.1", 1), ("::1", 1), ("8.8.8.8", 1), None]),
)
async def test_junk_is_nobodys_or_an_auth_error_and_nothing_else(
    data: bytes, scheme: bytes, query: bytes, protocols: list[str], client: Any
) -> None:
    names = (b"authorization", b"cookie", b"x-real-ip", b"x-forwarded-for")
    scope = http_scope(
        headers=[(name, scheme + data) for name in names] + [(b"cookie", b"c=" + data)],
        client=client,
        query_string=b"t=" + query,
        subprotocols=protocols,
    )
    auth = create_jwt_auth(KEY, ["HS256"], query_param="t", cookie="c", subprotocol="p")
    for one in (auth, client_ip):
        with suppress(EmptyInformation, jwt.PyJWTError):
            assert (await one(scope))[1] == "default"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ((KEY, []), ValueError, "algorithms"),
        ((KEY, ""), ValueError, "no algorithm ''"),
        ((KEY, "none"), ValueError, "no signature"),
        ((KEY, ["HS256", "None"]), ValueError, "no signature"),
        ((KEY, ["HS257"]), ValueError, "HS257"),
        ((KEY, [256]), TypeError, "an algorithm is a str"),
        (("", "HS256"), ValueError, "the key is not empty"),
        ((b"", "HS256"), ValueError, "the key is not empty"),
    ],
)
def test_what_makes_no_auth_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        create_jwt_auth(*given)


@pytest.mark.parametrize("leeway", [-1, float("inf"), float("nan")])
def test_a_leeway_that_makes_no_sense_is_refused(leeway: float) -> None:
    with pytest.raises(ValueError, match="leeway"):
        create_jwt_auth(KEY, "HS256", leeway=leeway)


def test_without_pyjwt_the_error_names_the_command() -> None:
    program = (
        "import sys; sys.modules['jwt'] = None\n"
        "from sluicegate.asgi.auths.jwt import create_jwt_auth\n"
        "try: create_jwt_auth('KEY', 'HS256')\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert 'pip install "sluicegate[jwt]"' in done.stdout, done.stderr


# ---- users


class Member(BaseUser):
    """A user as Starlette's documentation says to write one."""

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def identity(self) -> str:
        return "member:7"


class Named(Member):
    """One that leaves its identity out, and has a name alone."""

    display_name = "ada"  # type: ignore[assignment]

    @property
    def identity(self) -> str:
        raise NotImplementedError


class Known(Member):
    """Somebody, but not proved to be."""

    is_authenticated = False  # type: ignore[assignment]


async def test_starlettes_users() -> None:
    assert await from_user()({"user": Named()}) == ("ada", "default")
    with pytest.raises(EmptyInformation):
        await from_user()({"user": Known()})
    assert await from_user()({"user": SimpleUser("ada")}) == ("ada", "default")
    assert await from_user()({"user": Member()}) == ("member:7", "default")
    assert await from_user("username")({"user": SimpleUser("ada")}) == ("ada", "default")
    for scope in ({"user": UnauthenticatedUser()}, {"user": None}, {}):
        with pytest.raises(EmptyInformation):
            await from_user()(scope)
    with pytest.raises(AttributeError, match="email"):
        await from_user("email")({"user": SimpleUser("ada")})
    with pytest.raises(EmptyInformation):
        await from_user()({"user": SimpleUser("")})
    with pytest.raises(TypeError, match="attribute"):
        from_user(5)  # type: ignore[arg-type]


def test_djangos_and_channels_users() -> None:
    """In a process of its own, for Django's settings are a process's."""
    program = """
import asyncio
from django.conf import settings

settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"])
import django

django.setup()
from channels.auth import UserLazyObject
from django.contrib.auth.models import AnonymousUser, User
from sluicegate.asgi.auths import EmptyInformation, from_user

lazy = UserLazyObject()
lazy._wrapped = User(pk=42, username="ada")


async def main():
    for user in (User(pk=42, username="ada"), lazy):
        print(await from_user()({"user": user}), await from_user("username")({"user": user}))
    for user in (AnonymousUser(), User(username="not saved")):
        try:
            print(await from_user("pk")({"user": user}))
        except EmptyInformation:
            print("nobody")


asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [
        "('42', 'default') ('ada', 'default')",
        "('42', 'default') ('ada', 'default')",
        "nobody",
        "nobody",
    ], done.stderr
