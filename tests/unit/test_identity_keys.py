"""Keys by user, header, token and path, and several together: none can be chosen."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from itertools import product
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser
from starlette.requests import Request
from starlette.websockets import WebSocket

from calling import http_scope
from sluicegate.identity import (
    address,
    as_key,
    canonical_path,
    claim,
    everybody,
    header,
    key_of,
    path,
    together,
    user,
)

HOST = "203.0.113.9"
SECRET = "a key that is long enough for HS256, as RFC 7518 asks"


def token(**claims: Any) -> list[tuple[bytes, bytes]]:
    return bearer(jwt.encode(claims, SECRET, "HS256"))


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {text}".encode())]


# ---- users


class Unnamed(BaseUser):
    """Of Starlette's names it has none."""

    @property
    def is_authenticated(self) -> bool:
        return True


def test_a_user_who_is_authenticated_and_others() -> None:
    by_user = user()
    assert by_user(http_scope(user=SimpleUser("ada"))) == "user:ada"
    assert by_user(http_scope(user=SimpleNamespace(id=42))) == "user:42"
    for nobody in (None, UnauthenticatedUser(), SimpleNamespace(id=None), object()):
        assert by_user(http_scope(user=nobody)) == HOST
    assert by_user(http_scope()) == HOST
    by_mail = user("mail", otherwise=lambda scope: "guest")
    assert by_mail(http_scope(user=SimpleNamespace(mail="a@b"))) == "user:a@b"
    gone = SimpleNamespace(mail="a@b", is_authenticated=False)
    for nobody in (gone, SimpleUser("ada")):
        assert by_mail(http_scope(user=nobody)) == "guest"
    assert user("identity")(http_scope(user=Unnamed())) == HOST


def test_keys_take_starlettes_requests() -> None:
    request = Request(http_scope("/a/", user=SimpleUser("ada")))
    assert together(address(), user(), path())(request) == f"{HOST}|user:ada|path:/a"
    socket = WebSocket({**http_scope(), "type": "websocket"}, None, None)  # type: ignore[arg-type]
    assert address()(socket) == HOST


# ---- headers


def test_a_header_counts_from_a_trusted_proxy() -> None:
    by_header = header("X-Account", trusted_proxies="private")
    sent = [(b"X-ACCOUNT", b" ada ")]
    assert by_header(http_scope(client=("10.0.0.1", 1), headers=sent)) == "header:x-account:ada"
    assert by_header(http_scope(headers=sent)) == HOST
    twice = [*sent, (b"x-account", b"bob")]
    assert by_header(http_scope(client=("10.0.0.1", 1), headers=twice)) == "10.0.0.1"
    assert (
        by_header(http_scope(client=("10.0.0.1", 1), headers=[(b"x-account", b"")])) == "10.0.0.1"
    )


def test_a_header_counts_where_its_value_is_known() -> None:
    by_key = header("x-api-key", known={"k1", "k2"}.__contains__, otherwise=everybody)
    assert by_key(http_scope(headers=[(b"x-api-key", b"k1")])) == "header:x-api-key:k1"
    assert by_key(http_scope(headers=[(b"x-api-key", b"k3")])) == "app"
    assert by_key(http_scope()) == "app"


def test_a_header_that_anybody_may_write_is_no_key() -> None:
    with pytest.raises(ValueError, match="x-api-key would choose his key"):
        header("x-api-key")


# ---- tokens


def test_a_claim_of_a_token() -> None:
    by_claim = claim("sub", SECRET, "HS256", query_param="token")
    assert by_claim(http_scope(headers=token(sub="ada"))) == "claim:sub:ada"
    assert by_claim(http_scope(headers=token(sub="ada", x=1))) == "claim:sub:ada"
    text = jwt.encode({"sub": "ada"}, SECRET, "HS256")
    assert by_claim(http_scope(query_string=f"token={text}".encode())) == "claim:sub:ada"
    assert claim("n", SECRET, "HS256")(http_scope(headers=token(n=7))) == "claim:n:7"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        token(other="ada"),
        token(sub=""),
        token(sub="ada", exp=1),
        bearer("junk"),
        [(b"authorization", b"Basic YWRhOg==")],
        [*token(sub="ada"), *token(sub="bob")],
        bearer(jwt.encode({"sub": "ada"}, SECRET[::-1], "HS256")),
        bearer(jwt.encode({"sub": "ada"}, None, "none")),
    ],
)  # fmt: skip
def test_a_token_that_is_no_good_is_the_address(headers: Any) -> None:
    assert claim("sub", SECRET, ["HS256"])(http_scope(headers=headers)) == HOST


def test_a_missing_pyjwt_is_named() -> None:
    program = (
        "import sys; sys.modules['jwt'] = None\n"
        "from sluicegate.identity import claim\n"
        "try:\n    claim('sub', 'k' * 32, 'HS256')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == 'claim needs PyJWT: pip install "sluicegate[jwt]"', done.stderr


# ---- several


def test_no_two_combinations_are_one() -> None:
    """Of all short texts that could be taken for what joins others, up to three at once."""
    texts = ["".join(letters) for n in range(3) for letters in product("a|\\", repeat=n)]
    joined = {}
    for count in (1, 2, 3):
        for parts in product(texts, repeat=count):
            key = together(*(lambda scope, text=text: text for text in parts))({})  # type: ignore[misc]
            assert joined.setdefault(key, parts) == parts


def test_together_takes_plain_functions() -> None:
    async def later(scope: Any) -> str:
        return "x"

    with pytest.raises(ValueError, match="takes key functions"):
        together()
    for wrong in (later, "ip"):
        with pytest.raises(TypeError):
            together(address(), wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned NoneType"):
        together(lambda scope: None)({})


def test_what_key_arguments_say() -> None:
    scope = http_scope(user=SimpleUser("ada"))
    assert [as_key(name)(scope) for name in ("ip", "user", "app")] == [HOST, "user:ada", "app"]
    assert as_key(everybody) is everybody
    with pytest.raises(ValueError, match="'ip', 'user', 'app'"):
        as_key("address")
    with pytest.raises(TypeError, match="not int"):
        as_key(7)  # type: ignore[arg-type]
    assert [key_of(one) for one in ("a", b"a", 7)] == ["a", "a", "7"]
    assert key_of(b"\xff") != key_of("\ufffd".encode())
    for wrong in (None, True, 1.0, ["a"]):
        with pytest.raises(TypeError, match="tells clients apart"):
            key_of(wrong)


# ---- paths


@pytest.mark.parametrize(
    "spelling",
    [
        "/login", "/login/", "//login", "/login//", "/./login", "/login/.", "/x/../login",
        "/../login", "/%6cogin", "/%256cogin", "/%25256cogin", "/%25%36cogin",
        "/\uff056cogin", "/%2flogin", "/login%2f", "\\login",
        "/login%5c", "/x/%2e%2e/login", "/x/%2E%2E%2Flogin", "/x%2f..%2flogin", "/%252e/login",
        "/ｌｏｇｉｎ", "／login", "/log\u200bin", "/login\u00ad", "/login%00", "/login\r\n",
        "/\ufefflogin", "/login\ud800",
        "/login/\u2024", "/x/\uff0e\uff0e/login", "/𝐥ogin", "login", "/log\u2060in/%E2%80%8B",
        "/" + "./" * 50_000 + "login", "/%25" + "25" * 50_000 + "6cogin",
    ],
)  # fmt: skip
def test_other_spellings_of_a_path(spelling: str) -> None:
    assert canonical_path(spelling) == "/login"
    assert path()(http_scope(spelling)) == "path:/login"


def test_paths_that_differ() -> None:
    assert canonical_path("/") == canonical_path("") == canonical_path("//") == "/"
    assert canonical_path("/Login") == "/Login" != canonical_path("/login")
    assert canonical_path("/a.b/c-d_e~f") == "/a.b/c-d_e~f"
    assert canonical_path("/straße") == "/straße"
    for spelling in ("/LOGIN", "/Login/", "/%4Cogin", "/ＬＯＧＩＮ", "/loGın".replace("ı", "i")):
        assert canonical_path(spelling, ignore_case=True) == "/login"
    assert canonical_path("/STRASSE", ignore_case=True) == canonical_path(
        "/straße", ignore_case=True
    )
    assert canonical_path("/e\u0301") == canonical_path("/\u00e9")
    assert path()({}) == "path:/"


segment = st.text(
    st.characters(categories=("Ll", "Nd"), max_codepoint=0x24F), min_size=1, max_size=6
).filter(lambda text: unicodedata.normalize("NFKC", text) == text)


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, str]:
    """A path, and one of the ways to write it."""
    names = draw(st.lists(segment, min_size=1, max_size=4))
    written = ""
    for name in names:
        for _ in range(draw(st.integers(0, 2))):
            written += draw(st.sampled_from(["/", "/.", "/x/..", "\\", "/%2e", "/%252E", "%2F"]))
        letters = ""
        for letter in unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), name):
            way = draw(st.integers(0, 5))
            once = "".join(f"%{byte:02x}" for byte in letter.encode())
            letters += {0: once, 1: quote(once), 2: f"{letter}\u200b"}.get(way, letter)
        written += draw(st.sampled_from(["/", "//", "%2f", "\\"])) + letters
    return "/" + "/".join(names), written + draw(st.sampled_from(["", "/", "/.", "//", "%2f"]))


@given(spelled())
def test_no_spelling_dodges(pair: tuple[str, str]) -> None:
    true, written = pair
    assert canonical_path(written) == canonical_path(true) == true


@given(st.text(max_size=40), st.booleans())
def test_no_path_raises_and_each_has_one_spelling(text: str, ignore_case: bool) -> None:
    found = canonical_path(text, ignore_case=ignore_case)
    assert found.startswith("/") and found.isprintable()
    assert canonical_path(found, ignore_case=ignore_case) == found
