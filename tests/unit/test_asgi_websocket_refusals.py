"""How the middleware refuses handshakes and requests, what it tells, and where it cannot hold."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import socketio
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount

from calling import Dialog, call, echo, hello, turns
from sluicegate import Decision, MemoryStore
from sluicegate.asgi import EmptyInformation, RateLimitMiddleware, Rule
from sluicegate.asgi.answers import problem
from sluicegate.testing import Clock


class Door:
    def __init__(self, *rules: Rule, app: Any = None, **options: Any) -> None:
        self.clock = Clock()
        self.app = RateLimitMiddleware(
            app or both,
            backend=MemoryStore(clock=self.clock),
            config={"": list(rules)},
            **options,
        )

    def client(self, **scope: Any) -> Dialog:
        return Dialog(self.app, **scope)


async def both(scope: Any, receive: Any, send: Any) -> None:
    await (hello if scope["type"] == "http" else echo)(scope, receive, send)


def headers_of(message: dict[str, Any]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in message["headers"]}


# ---- handshakes


async def test_a_handshake_is_denied_by_http() -> None:
    door = Door(Rule(connections="5/minute burst 1"))
    async with door.client():
        pass
    async with door.client() as client:
        start, body = client.answer, await client.next()
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 429
    assert headers_of(start) == {
        "retry-after": "12",
        "content-length": str(len(body["body"])),
        "content-type": "application/problem+json",
    }
    assert (body["type"], body["more_body"]) == ("websocket.http.response.body", False)
    assert json.loads(body["body"]) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "Come again in 12 seconds.",
        "violated-policies": ["connections"],
        "retry_after": 12,
    }
    assert client.sent() == []


@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}])
async def test_without_the_extension_it_is_closed_before_it_is_accepted(extensions: Any) -> None:
    door = Door(Rule(connections="5/minute burst 1"))
    async with door.client():
        pass
    async with door.client(extensions=extensions) as client:
        assert client.answer == {
            "type": "websocket.close",
            "code": 1008,
            "reason": "Rate limit exceeded; retry after 12",
        }
        assert client.sent() == []


async def test_a_browser_can_be_told_by_a_close() -> None:
    door = Door(Rule(connections="5/minute burst 1", refuse="close"))
    async with door.client():
        pass
    async with door.client(subprotocols=["chat", "more"]) as client:
        assert client.answer == {"type": "websocket.accept", "subprotocol": "chat"}
        assert await client.next() == {
            "type": "websocket.close",
            "code": 1008,
            "reason": "Rate limit exceeded; retry after 12",
        }
    async with door.client() as client:
        assert client.answer["subprotocol"] is None


@pytest.mark.parametrize("refuse", ["deny", "close"])
async def test_for_want_of_a_place_nothing_tells_when(refuse: Any) -> None:
    door = Door(Rule(concurrent=1, refuse=refuse))
    async with door.client(), door.client() as client:
        if refuse == "deny":
            assert headers_of(client.answer)["retry-after"] == "1"
        else:
            assert (await client.next())["reason"] == "Rate limit exceeded"


@pytest.mark.parametrize("refuse", ["deny", "close"])
async def test_a_client_that_has_gone_meanwhile(refuse: Any) -> None:
    door = Door(Rule(connections="1/minute", refuse=refuse))
    async with door.client():
        pass
    client = door.client()
    client.leave()
    await door.app(client.scope, client.receive, client.send)
    assert client.sent() == []

    async def gone(message: Any) -> None:
        raise OSError("gone")

    client = door.client()
    client.put({"type": "websocket.connect"})
    if refuse == "close":
        await door.app(client.scope, client.receive, gone)


@pytest.mark.parametrize("messages", [[], ["a", "b"]])
async def test_a_server_that_sends_no_code_of_the_protocol(messages: list[str]) -> None:
    """As daphne."""

    class Particular(Dialog):
        async def send(self, message: dict[str, Any]) -> None:
            if message["type"] == "websocket.close" and message["code"] < 3000:
                raise Exception("invalid close code")
            await super().send(message)

    door = Door(Rule(connections="1/minute", refuse="close"), Rule(key="ip", messages="1/minute"))
    if not messages:
        async with door.client():
            pass
    async with Particular(door.app) as client:
        client.put(*messages)
        await turns()
        sent = client.sent()
    assert sent[-1]["code"] == 4008
    assert sent[-1]["reason"] == "Rate limit exceeded; retry after 60"


async def test_the_rule_that_refuses_says_how() -> None:
    door = Door(
        Rule(connections="1/minute", refuse="close"), Rule(key="app", connections="3/minute")
    )
    async with door.client():
        pass
    async with door.client() as client:
        assert client.answer["type"] == "websocket.accept"
    for host in ("a", "b"):
        async with door.client(client=(host, 1)):
            pass
    async with door.client(client=("c", 1)) as client:
        assert client.answer["status"] == 429


async def test_the_applications_own_answer() -> None:
    def blocked(retry_after: int) -> JSONResponse:
        return JSONResponse({"wait": retry_after}, 429, {"retry-after": str(retry_after)})

    def plainly(retry_after: int) -> Any:
        return hello

    for on_blocked, status, body in ((blocked, 429, b'{"wait":60}'), (plainly, 200, b"hello")):
        door = Door(Rule(connections="1/minute"), on_blocked=on_blocked)
        async with door.client():
            pass
        async with door.client() as client:
            assert client.answer["type"] == "websocket.http.response.start"
            assert client.answer["status"] == status
            assert (await client.next())["body"] == body


async def nobody(scope: Any) -> tuple[str, str]:
    raise EmptyInformation(scope)


async def test_who_cannot_be_told_is_answered_as_the_application_says() -> None:
    door = Door(
        Rule(connections="9/minute"),
        authenticate=nobody,
        on_auth_error=JSONResponse({"error": "who are you?"}, 401),
    )
    async with door.client() as client:
        assert (client.answer["status"], (await client.next())["body"]) == (
            401,
            b'{"error":"who are you?"}',
        )
    async with door.client(extensions={}) as client:
        assert (client.answer["type"], client.answer["code"]) == ("websocket.close", 1008)
    door = Door(
        Rule(connections="9/minute", refuse="close"), authenticate=nobody, on_auth_error=hello
    )
    async with door.client() as client:
        assert client.accepted
        assert (await client.next())["reason"] == "Forbidden"


async def test_an_error_of_authenticate_that_nobody_handles_goes_on() -> None:
    door = Door(Rule(connections="9/minute"), authenticate=nobody)
    with pytest.raises(EmptyInformation):
        async with door.client():
            pass


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_401_may_be_what_an_address_is_counted_by(extensions: Any) -> None:
    failed = (401, 403)
    door = Door(
        Rule(key="ip", requests="2/minute", count_when=lambda status: status in failed),
        Rule(requests="9/minute"),
        authenticate=nobody,
        on_auth_error=JSONResponse(None, 401),
    )
    for status in (401, 401, 429, 429):
        async with door.client(extensions=extensions) as client:
            assert client.answer.get("status", status) == status
            assert ("retry" in client.answer.get("reason", "")) == (
                not extensions and status == 429
            )


# ---- headers


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("ietf", {"ratelimit-policy", "ratelimit"}),
        ("x", {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}),
        ("both", {"ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining",
                  "x-ratelimit-reset"}),
        (None, set()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rule", [Rule(minute=2), Rule(requests="2/minute burst 2")])
async def test_headers_tell_where_a_client_stands(style: Any, names: set[str], rule: Rule) -> None:
    door = Door(rule, headers=style)
    answers = [await call(door.app) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert set(answers[0].headers) == set(answers[1].headers) == names
    refusal = answers[2].headers
    if rule.minute and style is None:  # all of it is asgi-ratelimit's, and so is the answer
        assert answers[2].body == b""
        assert set(refusal) == {"retry-after", "content-length"}
    else:
        assert json.loads(answers[2].body)["retry_after"] == int(refusal["retry-after"])
        assert set(refusal) == {*names, "retry-after", "content-length", "content-type"}
    assert int(refusal["retry-after"]) in (30, 60)
    if "ratelimit" in names:
        name = "minute" if rule.minute else "requests"
        assert refusal["ratelimit-policy"] == f'"{name}";q=2;w=60'
        assert answers[0].headers["ratelimit"].startswith(f'"{name}";r=1;t=')
    if "x-ratelimit-limit" in names:
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
        assert refusal["x-ratelimit-limit"] == "2"


async def test_a_problem_tells_what_was_exceeded_and_what_failed_is_no_limit() -> None:
    door = Door(Rule(requests="9/minute; search: 2/hour"))
    answers = [await call(door.app) for _ in range(3)]
    assert json.loads(answers[2].body)["violated-policies"] == ["search"]
    full = problem(Decision(False, limit=3, retry_after=math.inf), 1)  # as for want of a place
    answer = await call(full)
    assert answer.status == 429 and answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["violated-policies"] == []
    failed = await call(problem(Decision(False, degraded=True, retry_after=math.inf), 1))
    assert (failed.status, failed.retry_after) == (503, 1)
    assert "temporary-reduced-capacity" in json.loads(failed.body)["type"]


async def test_jitter_comes_on_top_of_retry_after() -> None:
    for rule in (Rule(requests="1/minute"), Rule(minute=1)):
        door = Door(rule, jitter=600.0)
        told = {(await call(door.app)).retry_after for _ in range(40)} - {None}
        assert len(told) > 10 and all(60 <= (seconds or 0) <= 660 for seconds in told)
    asked = []

    def blocked(seconds: int) -> Any:
        asked.append(seconds)
        return hello

    door = Door(Rule(minute=1), jitter=600.0, on_blocked=blocked)
    for _ in range(40):
        await call(door.app)
    assert len(set(asked)) > 10
    for wrong in (-1, math.inf, math.nan, "1"):
        with pytest.raises((TypeError, ValueError), match="jitter"):
            Door(Rule(minute=1), jitter=wrong)


async def test_headers_are_those_of_what_binds() -> None:
    door = Door(Rule(key="ip", requests="2/hour"), Rule(requests="9/minute"), headers="ietf")
    answer = await call(door.app)
    assert answer.headers["ratelimit-policy"] == '"requests";q=2;w=3600'
    door = Door(
        Rule(key="ip", requests="9/hour", count_when=lambda status: True),
        Rule(requests="2/minute"),
        Rule(key="app", requests="1/day", shadow=True),
        headers="ietf",
    )
    assert (await call(door.app)).headers["ratelimit-policy"] == '"requests";q=2;w=60'


async def test_headers_of_a_denied_handshake_and_none_of_an_exempt_request() -> None:
    door = Door(Rule(connections="1/minute"), Rule(key="ip"), headers="ietf")
    async with door.client():
        pass
    async with door.client() as client:
        assert headers_of(client.answer)["ratelimit-policy"] == '"connections";q=1;w=60'
    assert (await call(door.app)).headers == {}


async def test_the_applications_own_headers_stay() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"RateLimit", b"mine"), (b"a", b"1"), (b"a", b"2")],
            }
        )
        await send({"type": "http.response.body", "body": b""})

    door = Door(Rule(requests="2/minute"), app=app, headers="ietf")
    headers = (await call(door.app)).headers
    assert headers["RateLimit"] == "mine"
    assert headers["a"] == "2"
    assert "ratelimit" not in headers
    assert "ratelimit-policy" in headers


@pytest.mark.parametrize("headers", ["X", True, "x,ietf"])
def test_what_are_no_headers_is_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match="headers are"):
        Door(headers=headers)


# ---- where a rule cannot hold


async def test_delay_is_an_error_where_the_server_reads_on() -> None:
    door = Door(Rule(messages="1/second", on_excess="delay"))
    queue: asyncio.Queue[Any] = asyncio.Queue()  # as daphne's
    queue.put_nowait({"type": "websocket.connect"})
    client = door.client()
    with pytest.raises(RuntimeError, match=r"on_excess='delay'.*daphne.*'close', 'drop' or"):
        await door.app(client.scope, queue.get, client.send)
    bounded: asyncio.Queue[Any] = asyncio.Queue(1)
    bounded.put_nowait({"type": "websocket.connect"})
    task = asyncio.ensure_future(door.app(client.scope, bounded.get, client.send))
    assert (await client.next())["type"] == "websocket.accept"
    await bounded.put({"type": "websocket.disconnect", "code": 1000})
    await task


async def test_delay_is_an_error_where_daphne_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind another middleware; that it is imported is no sign."""
    door = Door(Rule(messages="1/second", on_excess="delay"))
    monkeypatch.setitem(sys.modules, "daphne.server", SimpleNamespace())
    for running in (False, True):
        reactor = SimpleNamespace(running=running)
        monkeypatch.setitem(sys.modules, "twisted.internet.reactor", reactor)
        if running:
            with pytest.raises(RuntimeError, match="daphne"):
                async with door.client():
                    pass
        else:
            async with door.client() as client:
                assert client.accepted


async def test_the_other_ways_hold_there() -> None:
    for on_excess in ("close", "drop", "notify"):
        door = Door(Rule(messages="1/second", on_excess=on_excess))
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for message in ("connect", "receive", "receive"):
            queue.put_nowait({"type": f"websocket.{message}", "text": "a"})
        queue.put_nowait({"type": "websocket.disconnect", "code": 1000})
        client = door.client()
        await door.app(client.scope, queue.get, client.send)
        assert [one.get("text") for one in client.sent()][:2] == [None, "a"]


def socket_server() -> Any:
    return socketio.AsyncServer(async_mode="asgi")


def starlette_with(mounted: Any) -> Starlette:
    return Starlette(routes=[Mount("/live", mounted)])


def fastapi_with(mounted: Any) -> FastAPI:
    app = FastAPI()
    app.mount("/live", mounted)
    return app


class Between:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "pattern"),
    [
        (socketio.ASGIApp(socket_server()), "^/socket.io"),
        (socketio.ASGIApp(socket_server()), "^/"),
        (socketio.ASGIApp(socket_server(), socketio_path="chat"), "^/chat/"),
        (socketio.ASGIApp(socket_server(), Starlette()), ""),
        (socketio.ASGIApp(socket_server()), r"^/socket\.io$"),
        (Between(Between(socketio.ASGIApp(socket_server()))), "^/socket"),
        (starlette_with(socketio.ASGIApp(socket_server())), "^/live"),
        (fastapi_with(socketio.ASGIApp(socket_server())), "^/live/socket"),
        (
            starlette_with(socketio.ASGIApp(socket_server(), socketio_path="live/socket.io")),
            "^/live/socket.io",
        ),
        (Starlette().router, None),
        (Quart(__name__), None),
        (None, None),
    ],
)
def test_messages_in_front_of_socketio_are_an_error(app: Any, pattern: str | None) -> None:
    rules = [
        Rule(messages="5/second"),
        Rule(bytes="1MB/minute", group="vip"),
        Rule(messages="5/second", shadow=True),
    ]
    for rule in rules:
        if pattern is not None:
            with pytest.raises(ValueError, match=r"Socket\.IO.*SocketIOLimiter\.attach"):
                RateLimitMiddleware(app, config={pattern: [rule]})
        RateLimitMiddleware(app, config={"^/elsewhere": [rule]})
    holds = Rule(requests="9/second", connections="1/second", concurrent=3, max_message_size=9)
    for_all = replace(holds, group="*")
    RateLimitMiddleware(app, config={pattern or "": [for_all], ".*": [Rule(messages="1/second")]})


async def test_a_starlette_application_with_socketio_inside_is_found_when_it_is_built() -> None:
    app = starlette_with(socketio.ASGIApp(socket_server()))
    app.add_middleware(RateLimitMiddleware, config={"^/live": [Rule(messages="1/second")]})
    with pytest.raises(ValueError, match=r"SocketIOLimiter\.attach"):
        await call(app)
    await turns()
