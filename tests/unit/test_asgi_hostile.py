"""The middleware and the dashboard among applications, servers and functions of the worst kind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from calling import Answer, Dialog, call, echo, hello, http_scope, turns, websocket_scope
from sluicegate import ConcurrencyLimiter, Limiter, MemoryStore
from sluicegate.asgi import Dashboard, RateLimitMiddleware, Rule
from sluicegate.identity import address
from sluicegate.testing import Clock

PLACE = "pattern:* 203.0.113.9 ^/"


def limited(app: Any = hello, *rules: Rule, **options: Any) -> RateLimitMiddleware:
    options.setdefault("backend", MemoryStore(clock=Clock()))
    config = {"^/": rules or [Rule(requests="9/minute burst 2")]}
    return RateLimitMiddleware(app, config=config, headers="both", **options)


async def held(app: RateLimitMiddleware) -> int:
    backend: Any = app.backend
    places = ConcurrencyLimiter(1, store=backend.store, name="asgi:places")
    return await places.count(PLACE)


# ---- scopes


@pytest.mark.parametrize(
    "client",
    [
        *(None, (), ("", 0), [None, None], 5, "abc", ("\ud800", 1), ("x" * 100_000, 1)),
        *((b"203.0.113.1", 1), ("203.0.113.1",), {"a": 1}, ("\x00\n", 0), ("fe80::1%\x00", 1)),
    ],
    ids=lambda client: repr(client)[:20],
)
async def test_whatever_a_server_calls_a_client_is_one(client: Any) -> None:
    app = limited()
    assert [(await call(app, client=client)).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("without", ["client", "headers", "raw_path", "query_string", "root_path"])
async def test_a_scope_may_lack_what_the_specification_lets_it_lack(without: str) -> None:
    async def status() -> int:
        scope = http_scope(client=None)
        del scope[without]
        answer = Answer()

        async def send(message: Any) -> None:
            answer.status = message.get("status", answer.status)

        await app(scope, None, send)  # type: ignore[arg-type]
        return answer.status

    app = limited(address=address(trusted_proxies=["unix"]))
    assert [await status() for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-forwarded-for", b"\xff\xfe" * 9000)],
        [(b"x-forwarded-for", b",".join([b"198.51.100.1"] * 5000))],
        [(b"X-Forwarded-For", b"198.51.100.1")] * 20_000,
        [(b"forwarded", b'for="' * 12_000)],
        [(b"forwarded", b'for="\\' * 12_000)],
        [(b"forwarded", b"for=198.51.100.1," * 4000)],
        [(b"x-real-ip", b"")],
        [(b"\xff\xff", b"\xff")] * 20_000,
    ],
    ids=lambda headers: repr(headers[0])[:30],
)
async def test_headers_of_any_size_and_bytes_take_no_time(headers: Any) -> None:
    app = limited(address=address(trusted_proxies="private"))
    began = time.perf_counter()
    answers = [await call(app, client=("127.0.0.1", 1), headers=headers) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert time.perf_counter() - began < 1  # seconds; each takes some milliseconds at most


# ---- functions


def raises(*arguments: Any) -> Any:
    raise ValueError("of the test")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


async def later(scope: Any) -> str:
    return "one"


@pytest.mark.parametrize("found", [None, 5, b"one", ["one"], object()])
async def test_an_address_that_is_none_is_an_error_and_no_way_round(found: Any) -> None:
    for rule in (Rule(requests="1/minute"), Rule(requests="1/minute", key="ip")):
        with pytest.raises(TypeError, match="address returned"):
            await call(limited(hello, rule, address=lambda scope: found))


async def test_an_address_that_is_to_be_awaited_is_an_error() -> None:
    with pytest.raises(TypeError, match="address returned coroutine, not str"):
        await call(limited(address=later))  # type: ignore[arg-type]


async def test_an_error_without_a_text_is_handled_as_any() -> None:
    def authenticate(scope: Any) -> Any:
        raise UnspeakableError

    app = limited(authenticate=authenticate, on_auth_error=lambda error: hello)
    assert (await call(app)).status == 200
    with pytest.raises(UnspeakableError):
        await call(limited(authenticate=authenticate))


@pytest.mark.parametrize("what", ["cost", "key", "count_when"])
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
async def test_a_function_that_raises_leaves_no_place(
    what: str, error: type[BaseException]
) -> None:
    def function(given: Any) -> Any:
        raise error

    rule = Rule(requests="5/minute", concurrent=1, key="ip")
    more = {what: function, "concurrent": 1 if what != "key" else None}
    app = limited(hello, rule, Rule(requests="5/minute", **more))
    for _ in range(3):
        with pytest.raises(error):
            await call(app)
    assert await held(app) == 0


async def test_a_notice_may_be_made_later() -> None:
    async def notify(notice: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"slow": notice["retry_after"]}

    rule = Rule(messages="1/minute", on_excess="notify", notify=notify)
    async with Dialog(limited(echo, rule)) as client:
        client.put("a", "b")
        await turns()
        assert [one["text"] for one in client.sent()] == ["a", '{"slow": 60}']


# ---- applications

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 1000}
SEND = {"type": "websocket.send", "text": "x"}
DENY = {"type": "websocket.http.response.start", "status": 403, "headers": []}
RECEIVED = [
    {"type": "websocket.receive", "text": "a"},
    {"type": "websocket.receive", "bytes": b"b"},
    {"type": "websocket.receive"},
    {"type": "websocket.receive", "text": None, "bytes": None},
    {"type": "websocket.receive", "text": "\ud800"},
    {"type": "websocket.receive", "text": "x" * 5000},
    {"type": "of-some-extension"},
]

STEPS: dict[str, list[Any]] = {
    "does nothing": [],
    "sends before it accepts": ["receive", SEND, ACCEPT],
    "accepts twice": ["receive", ACCEPT, ACCEPT],
    "sends after its close": ["receive", ACCEPT, CLOSE, SEND, CLOSE],
    "never receives": [ACCEPT, SEND, SEND],
    "receives for ever": ["receive", ACCEPT, *["receive"] * 20],
    "sends what is no message": ["receive", ACCEPT, {}],
    "sends of another kind": ["receive", ACCEPT, {"type": "http.disconnect"}],
    "denies, and then accepts": ["receive", DENY, ACCEPT],
    "denies without a status": ["receive", {"type": DENY["type"]}],
    "raises": ["receive", ACCEPT, ValueError("of the test")],
    "is thrown away": ["receive", ACCEPT, GeneratorExit()],
    "leaves a task that receives": ["receive", ACCEPT, "leave"],
}


@pytest.mark.parametrize("on_excess", ["close", "drop", "notify", "delay"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
async def test_no_application_keeps_a_place_or_a_task(steps: list[Any], on_excess: Any) -> None:
    left: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if step == "receive":
                await receive()
            elif step == "leave":
                left.append(asyncio.ensure_future(receive()))
                await asyncio.sleep(0)
            elif isinstance(step, BaseException):
                raise step
            else:
                await send(step)

    messages = [{"type": "websocket.connect"}, *RECEIVED, {"type": "websocket.disconnect"}]

    async def receive() -> Any:
        if not messages:
            raise RuntimeError("there is nothing after a disconnect")
        return messages.pop(0)

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    rule = Rule(
        messages="3/second",
        bytes="1KB/second",
        concurrent=1,
        max_message_size=2000,
        on_excess=on_excess,
        max_delay=0.05,
        connections="9/second",
        count_when=lambda status: status == 101,
    )
    limiting = limited(app, rule, backend=MemoryStore())
    before = asyncio.all_tasks()
    with contextlib.suppress(ValueError, KeyError, RuntimeError, GeneratorExit):
        await asyncio.wait_for(limiting(websocket_scope(), receive, send), 10)
    await asyncio.gather(*left, return_exceptions=True)
    await turns()
    assert await held(limiting) == 0
    assert asyncio.all_tasks() == before


START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ([START, BODY, START, BODY], None),
        ([], None),
        ([{**START, "headers": None}, BODY], None),
        ([{**START, "headers": iter([[b"a", b"b"]])}, BODY], None),
        ([{**START, "headers": ((b"RateLimit", b"its own"),)}, BODY], None),
        ([{"type": "of-some-extension"}, START, BODY], None),
        ([{"type": START["type"]}], KeyError),
        ([{}], KeyError),
        ([START, ValueError()], ValueError),
        ([GeneratorExit()], GeneratorExit),
    ],
)
async def test_whatever_is_answered_the_place_is_free(
    sent: Iterable[Any], error: type[BaseException] | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in sent:
            if isinstance(message, BaseException):
                raise message
            await send(message)

    counted = Rule(requests="9/minute", concurrent=1, count_when=lambda status: status == 200)
    limiting = limited(app, counted)
    if error is None:
        await call(limiting)
    else:
        with pytest.raises(error):
            await call(limiting)
    assert await held(limiting) == 0


# ---- the dashboard


async def answered(app: Any, scope: dict[str, Any], *messages: dict[str, Any]) -> Any:
    """The status of its answer; the type of what it sent to a handshake."""
    waiting, sent = [*messages], list[Any]()

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(app(scope, receive, send), 10)
    return sent[0].get("status", sent[0]["type"])


def without_headers(scope: dict[str, Any]) -> dict[str, Any]:
    del scope["headers"]
    return scope


def posted(body: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": body}


FEED: Callable[..., dict[str, Any]] = websocket_scope


@pytest.mark.parametrize(
    ("scope", "messages", "expected"),
    [
        (without_headers(http_scope("/")), [], 401),
        ({**http_scope("/"), "headers": None}, [], 401),
        (http_scope("/", headers=[(b"authorization", b"Bearer \xff\xfe")]), [], 401),
        (http_scope("/", headers=[(b"cookie", b";=\xff;" * 9000)]), [], 401),
        (http_scope("/", "POST"), [], 403),
        (http_scope("/", "POST"), [posted(b"token=%ff%zz&&&token=\xff")], 403),
        (http_scope("/", "POST"), [{**posted(b"x" * 5000), "more_body": True}], 413),
        (http_scope("/", "POST", client=()), [{"type": "http.request"}], 403),
        (http_scope("/static/../page.py"), [], 404),
        (http_scope("/static//etc/passwd"), [], 404),
        (http_scope("/static/\x00\ud800"), [], 404),
        (http_scope("/static/" + "a" * 9000), [], 404),
        (without_headers(FEED("/feed")), [{"type": "websocket.connect"}], "websocket.close"),
        (FEED("/feed", [(b"origin", b"http://[\xff")]), [], "websocket.close"),
    ],
)
async def test_junk_gets_nowhere_in_the_dashboard(
    scope: dict[str, Any], messages: list[dict[str, Any]], expected: Any
) -> None:
    app = Dashboard({"a": Limiter("5/second")}, token="of-the-tests-0123456789")
    assert await answered(app, scope, *messages) == expected
