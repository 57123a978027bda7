"""The gates in C: they decide as the Python side does, and leave to it what they should."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sluicegate import Limiter, MemoryStore, Quota, _core
from sluicegate.asgi import RateLimitMiddleware, Rule, search
from sluicegate.identity import address
from sluicegate.testing import Clock, record
from sluicegate.websocket.sizes import size_of

Pairs = list[tuple[bytes, bytes]]


class Scope(dict[str, Any]):
    """No dict of the kind that the gate takes: all of it is left to the Python side."""


def scope_of(path: str = "/", host: Any = "192.0.2.1", **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "client": (host, 1), **more}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X", b"y")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def answer(door: Any, scope: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await door(scope, receive, send)
    return sent


def door_of(rules: dict[str, list[Rule]], clock: Clock, **more: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, backend=MemoryStore(clock=clock), config=rules, **more)


# ---- HTTP

RULES: list[dict[str, list[Rule]]] = [
    {r"^/a": [Rule(requests="3/minute")]},
    {r"^/a": [Rule(requests="3/minute", per="path")], r"^/": [Rule(requests="2/minute", key="ip")]},
    {r"^/a": [Rule(requests="3/minute", zone="a zone")]},
    {r"^/a": [Rule(minute=3)], r"^/b": [Rule(requests="2/minute", method="POST")]},
    {r"^/a": [Rule(minute=3, zone="z", block_time=120)], r"^/b": [Rule(requests="5/minute")]},
    {r"^/a": [Rule(minute=3, hour=4)], r"^/": [Rule(requests="2/minute", shadow=True)]},
    {r"^/a": [Rule(requests="3/minute", count_when=lambda status: status == 401)]},
    {r"^/a": [Rule(requests="3/minute", cost=lambda scope: 2)], r"^/b": [Rule()]},
    {r"^/a": [Rule(group="vip")], r"^/b": [Rule(requests="2/minute", group="*")]},
    {r"^/a": [Rule(requests="1/minute", method="POST")], r"^/": [Rule(requests="4/minute")]},
]


@pytest.mark.parametrize("headers", ["ietf", "both", None])
@pytest.mark.parametrize("rules", RULES)
async def test_it_decides_as_the_python_side_does(
    rules: dict[str, list[Rule]], headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    clock = Clock()
    one = door_of(rules, clock, headers=headers)
    # the other knows no short way at all
    monkeypatch.setattr(search.Search, "_at_once", lambda self, rules: None)
    other = door_of(rules, clock, headers=headers)
    hosts = ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "a b%c", "", None]
    for _ in range(300):
        scope = scope_of(
            chance.choice(["/a", "/a/b", "/b", "/c", "/a b%20", "/é"]),
            chance.choice(hosts),
            method=chance.choice(["GET", "POST"]),
        )
        with record() as decided:
            gate = await answer(one, scope)
        with record() as long_way:
            python = await answer(other, Scope(scope))
        # of what is told in seconds since the epoch the clock is the system's
        assert without_reset(gate) == without_reset(python), scope
        # without headers plain rules are the backend's own, which asks who is blocked each time
        if headers is not None:
            assert [(seen.key, seen.decision) for seen in decided] == [
                (seen.key, seen.decision) for seen in long_way
            ]
        clock.advance(chance.choice([*[0] * 20, 1, 20]))


def without_reset(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**message, "headers": [p for p in message["headers"] if p[0] != b"x-ratelimit-reset"]}
        if "headers" in message
        else message
        for message in sent
    ]


async def test_the_usual_request_never_comes_to_the_python_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = door_of({r"^/": [Rule(requests="2/minute")]}, Clock(), headers="ietf")
    monkeypatch.setattr(door, "_http", None)
    for _ in range(2):
        start, body = await answer(door, scope_of())
        assert dict(start["headers"])[b"ratelimit-policy"] == b'"requests";q=2;w=60'
        assert body == {"type": "http.response.body", "body": b"ok"}
    assert (await answer(door, scope_of()))[0]["status"] == 429
    plain = door_of({r"^/": [Rule(minute=1)]}, Clock())
    monkeypatch.setattr(plain, "_http", None)
    assert (await answer(plain, scope_of()))[0]["status"] == 200
    assert (await answer(plain, scope_of()))[0]["status"] == 429


async def test_what_it_keeps_of_paths_and_addresses_has_a_bound() -> None:
    matched: list[str] = []

    def matches(path: str) -> bool:
        matched.append(path)
        return True

    limiter = Limiter("1/hour", store=MemoryStore(clock=Clock()))
    keys: list[str] = []

    def key(who: str, path: str) -> str:
        keys.append(who)
        return who

    gate = _core.HttpGate(
        [(matches, None, limiter, None, key, False)], lambda scope: scope["client"][0], True
    )

    def ask(path: str, host: str) -> Any:
        return gate({"path": path, "client": [host, 1]}, print)

    assert ask("/", "a") is print
    assert ask("/", "a") == (None, limiter.peek_nowait("a"))  # refused, and told so
    assert (matched, keys) == (["/"], ["a"])
    for number in range(5000):
        ask(f"/{number}", f"host {number}")
    ask("/", "a"), ask("/" + "x" * 300, "h" * 100), ask("/" + "x" * 300, "h" * 100)
    # forgotten, and found out anew; what is too long is so each time
    assert matched[-3:] == ["/", "/" + "x" * 300, "/" + "x" * 300]
    assert keys[-3:] == ["a", "h" * 100, "h" * 100]


async def test_a_path_of_several_spellings_is_left_to_who_knows_them_all() -> None:
    limiter = Limiter("9/hour", store=MemoryStore(clock=Clock()))
    pattern = (lambda path: True, None, limiter, None, lambda who, path: who, False)
    asked: list[str] = []

    def usual(path: str) -> bool:
        asked.append(path)
        return "//" not in path

    gate = _core.HttpGate([pattern], lambda scope: "who", usual=usual)
    assert gate({"path": "/"}, print) is print
    assert gate({"path": "/", "root_path": ""}, print) is print
    assert gate({"path": "//"}, print) is gate({"path": "//"}, print) is None
    assert asked == ["/", "//"]
    assert gate({"path": "/", "root_path": "/api"}, print) is None  # nor is one below a root
    assert limiter.peek_nowait("who").remaining == 7

    # "/a" and "/a/" are one path to count by
    door = door_of({r"^/": [Rule(requests="2/minute", per="path")]}, Clock())
    paths = ["/a", "/a/", "//a", "/b", "/b/", "/b"]
    found = [(await answer(door, scope_of(path)))[0]["status"] for path in paths]
    assert found == [200, 200, 429, 200, 200, 429]


async def test_behind_proxies_the_address_is_asked_each_time() -> None:
    door = door_of(
        {r"^/": [Rule(requests="1/minute")]}, Clock(), address=address(trusted_proxies="192.0.2.9")
    )
    for client in (b"203.0.113.1", b"203.0.113.2"):
        scope = scope_of(host="192.0.2.9", headers=[(b"x-forwarded-for", client)])
        assert [(await answer(door, scope))[0]["status"] for _ in range(2)] == [200, 429]


async def test_who_is_blocked_is_refused_by_the_gate_s_rules_too() -> None:
    clock = Clock()
    rules = {
        r"^/a": [Rule(minute=1, block_time=300)],
        r"^/b": [Rule(minute=100)],
    }
    door = door_of(rules, clock, headers="ietf")
    statuses = [(await answer(door, scope_of(path)))[0]["status"] for path in ("/a", "/a", "/b")]
    assert statuses == [200, 429, 429]
    clock.advance(301)
    assert (await answer(door, scope_of("/b")))[0]["status"] == 200


async def test_new_rules_hold_from_the_next_request_on() -> None:
    door = door_of({r"^/": [Rule(requests="1/minute")]}, Clock())
    assert [(await answer(door, scope_of()))[0]["status"] for _ in range(2)] == [200, 429]
    door.use({r"^/x": [Rule(requests="1/minute")]})
    assert (await answer(door, scope_of()))[0]["status"] == 200


# ---- by users


async def authenticate(scope: Any) -> tuple[Any, str]:
    name = dict(scope["headers"])[b"user"].decode()
    if name == "nobody":
        raise ValueError(name)
    return (7, "vip") if name == "vip" else (name, "free" if name == "free" else "default")


async def forbidden(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 403, "headers": []})
    await send({"type": "http.response.body", "body": b""})


USERS: list[dict[str, list[Rule]]] = [
    {r"^/a": [Rule(minute=3, block_time=90)], r"^/b": [Rule(minute=2, group="vip")]},
    {r"^/a": [Rule(group="vip"), Rule(requests="3/minute")], r"^/": [Rule(minute=1, group="*")]},
    {r"^/a": [Rule(minute=2, group="*", zone="z"), Rule(minute=1, group="vip")], r"^/b": [Rule()]},
    {r"^/a": [Rule(minute=3, second=1)], r"^/b": [Rule(requests="2/minute", per="path")]},
]


@pytest.mark.parametrize("headers", ["ietf", None])
@pytest.mark.parametrize("rules", USERS)
async def test_users_are_decided_at_once_as_by_a_search(
    rules: dict[str, list[Rule]], headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    clock = Clock()

    def door() -> RateLimitMiddleware:
        return door_of(
            rules, clock, headers=headers, authenticate=authenticate, on_auth_error=forbidden
        )

    one = door()
    monkeypatch.setattr(search.Search, "_at_once", lambda self, rules: None)
    other = door()
    refused = 0
    for _ in range(300):
        scope = scope_of(
            chance.choice(["/a", "/a/b", "/b", "/c"]),
            headers=[(b"user", chance.choice([b"ann", b"vip", b"free", b"nobody"]))],
        )
        at_once, searched = await answer(one, scope), await answer(other, scope)
        refused += at_once[0]["status"] == 429
        assert at_once == searched, scope
        clock.advance(chance.choice([*[0] * 20, 1, 20]))
    assert refused


# ---- headers


async def test_headers_that_a_response_has_stay_and_the_message_is_left_alone() -> None:
    sent: list[Any] = []
    sender = _core.Sender(sent.append, [(b"ratelimit", b"r"), (b"retry-after", b"3")])
    own = ((name, b"own") for name in (b"Retry-After", bytearray(b"X")))
    message = {"type": "http.response.start", "status": 200, "headers": own}
    sender(message)
    assert message["headers"] is own
    assert sent.pop()["headers"] == [(b"Retry-After", b"own"), (b"X", b"own"), (b"ratelimit", b"r")]
    sender({"type": "websocket.http.response.start", "status": 403})
    assert sent.pop()["headers"] == [(b"ratelimit", b"r"), (b"retry-after", b"3")]
    for other in ({"type": "http.response.body"}, {"type": "start"}, {"type": 5}, {}, None):
        sender(other)
        assert sent.pop() is other


async def test_it_returns_what_send_returns() -> None:
    waiting = object()
    sender = _core.Sender(lambda message: waiting, [])
    assert sender({"type": "http.response.start"}) is waiting


@pytest.mark.parametrize("style", ["ietf", "x", "both"])
def test_raw_headers_are_those_of_the_decision(style: Any) -> None:
    limiter = Limiter(Quota(5, 60, name='say "hi"'), store=MemoryStore(clock=Clock()))
    limiter.hit_nowait("a", 5)
    decision = limiter.hit_nowait("a")
    told: dict[str, str] = {}
    for one in ("ietf", "x") if style == "both" else (style,):
        told |= decision.headers(one)
    raw = {name.decode(): value.decode() for name, value in _core.raw_headers(decision, style)}
    assert raw.keys() == {name.lower() for name in told}
    for name, value in told.items():
        if name != "X-RateLimit-Reset":
            assert raw[name.lower()] == value


def test_numbers_are_cut_to_what_a_structured_field_holds() -> None:
    quota = Quota(5, 60, name="q")
    decision = _core.Decision(True, quota=quota, remaining=2**63, reset_after=1e300)
    assert decision.headers()["RateLimit"] == '"q";r=999999999999999;t=999999999999999'
    assert _core.Decision(False, retry_after=1e300).headers() == {"Retry-After": "9" * 15}
    assert _core.Decision(False, retry_after=0.0).headers() == {"Retry-After": "1"}


# ---- messages


def text(said: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": said}


@pytest.mark.parametrize(
    "message",
    [
        {"text": "abc"},
        {"text": "é"},
        {"text": "€\U0001f600x"},
        {"text": "\ud800"},
        {"text": None, "bytes": b"12345"},
        {"bytes": b""},
        {"text": ""},
    ],
)
def test_a_message_takes_its_bytes(message: dict[str, Any]) -> None:
    limiter = Limiter("messages: 9/hour; bytes: 1000/hour", store=MemoryStore(clock=Clock()))
    gate = _core.MessageGate(limiter, "k", 1)
    assert gate({"type": "websocket.receive", **message}) is True
    said = message.get("text")
    size = size_of(message["bytes"] if said is None else said)
    of_bytes = limiter.peek_nowait("k", {"messages": 0, "bytes": 1000 - size})
    assert of_bytes.allowed
    assert not limiter.peek_nowait("k", {"messages": 0, "bytes": 1001 - size}).allowed
    assert limiter.peek_nowait("k", {"messages": 8, "bytes": 0}).allowed
    assert not limiter.peek_nowait("k", {"messages": 9, "bytes": 0}).allowed


def test_a_refusal_is_its_decision_and_what_is_not_usual_is_left_alone() -> None:
    limiter = Limiter("1/hour", store=MemoryStore(clock=Clock()))
    gate = _core.MessageGate(limiter, "k", 1, 5)
    for data in ({"text": "123456"}, {"bytes": bytearray(b"x")}, {}, {"text": 5}):
        assert gate({"type": "websocket.receive", **data}) is None
    for other in ({**text("x"), "type": "websocket.disconnect"}, {"text": "x"}, None):
        assert gate(other) is None
    assert limiter.peek_nowait("k").allowed  # nothing was charged
    assert gate(text("12345")) is True
    refused = gate(text("12345"))
    assert isinstance(refused, _core.Decision)
    assert refused == limiter.peek_nowait("k") and refused.quota is limiter.quotas[0]
    assert _core.MessageGate(None, "k", 0, 5)(text("12345")) is True
    assert _core.MessageGate(None, "k", 0, 5)(text("123456")) is None


def test_a_clock_in_python_is_left_to_python() -> None:
    limiter = Limiter("messages: 9/hour; bytes: 9/hour", store=MemoryStore(clock=lambda: 5.0))
    assert _core.MessageGate(limiter, "k", 1)(text("x")) is None


def test_messages_are_seen_by_an_observer() -> None:
    limiter = Limiter("messages: 9/hour; bytes: 9/hour", store=MemoryStore(clock=Clock()))
    gate = _core.MessageGate(limiter, "k", 1)
    with record() as decided:
        assert gate(text("x")) is True
        assert isinstance(gate(text("x" * 9)), _core.Decision)
    assert [(seen.key, seen.decision.allowed) for seen in decided] == [("k", True), ("k", False)]


def test_frames_go_straight_until_they_are_not_to() -> None:
    sent: list[Any] = []
    looked_at: list[Any] = []
    send = _core.FrameSend(sent.append, looked_at.append)
    frame, other = {"type": "websocket.send", "text": "x"}, {"type": "websocket.accept"}
    for message in (frame, other, {}, None):
        send(message)
    assert sent == [frame] and looked_at == [other, {}, None]
    send.straight = False
    send(frame)
    assert sent == [frame] and looked_at[-1] is frame
