"""What is attacked: an echo of a few lines behind the middleware, in a process that watches itself.

Whom a rule counts is the address that a proxy on this machine tells of, so that every attacker
has one of his own. `^/direct` believes no proxy. `/watch` is a WebSocket beside the rules: "start"
begins to measure, "stop" answers with what was found.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from attacks.watching import Watch
from sluicegate import ConcurrencyLimiter, Limiter, MemoryStore
from sluicegate.asgi import RateLimitMiddleware, Rule
from sluicegate.identity import address

QUOTA = 100  # a day: nothing comes back within a test
PLACES = 3
MAX_KEYS = 10_000
MAX_SIZE = 64 * 1024

STORE = MemoryStore(max_keys=MAX_KEYS)
A_DAY = f"{QUOTA}/day"


def messages(on_excess: str, **more: Any) -> list[Rule]:
    return [
        Rule(key="ip", group="*", messages=A_DAY, on_excess=on_excess, concurrent=PLACES, **more)
    ]


CONFIG = {
    r"^/ws/drop$": messages("drop"),
    r"^/ws/notify$": messages("notify"),
    r"^/ws/close$": messages("close"),
    r"^/ws/delay$": messages("delay", max_delay=100_000),
    r"^/ws/size$": messages("close", max_message_size=MAX_SIZE),
    r"^/ws/free$": [Rule(key="ip", group="*")],  # no limit, to compare with
    r"^/ws/many$": [Rule(key="ip", group="*", connections=A_DAY)],
    r"^/ws/held$": [Rule(key="ip", group="*", connections="1000000/day", concurrent=PLACES)],
    # windows, so that the well-behaved are counted by other limiters than the attackers
    r"^/(ws/)?friend$": [
        Rule(
            key="ip",
            group="*",
            requests="1000000/day using fixed-window",
            messages="1000000/day using fixed-window",
        )
    ],
    r"^/direct$": [Rule(key=address(), group="*", requests=A_DAY)],
    r"^/": [Rule(key="ip", group="*", requests=A_DAY)],
}

handled: Counter[str] = Counter()  # what came through to the application, by path


async def echo(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if scope["type"] == "http":
        handled[path] += 1
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
        )
        await send({"type": "http.response.body", "body": b""})
        return
    await receive()
    handled[f"{path} open"] += 1
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        handled[path] += 1
        await send({**message, "type": "websocket.send"})


limited = RateLimitMiddleware(
    echo, backend=STORE, config=CONFIG, address=address(trusted_proxies=("127.0.0.0/8",))
)

# the limiters of these rules, by their names; numbers are the rules' own
LIMITERS = {
    what: Limiter(A_DAY, store=STORE, name=name)
    for what, name in {
        "messages": "asgi:messages:ip:gcra",
        "connections": "asgi:connections:ip:gcra",
        "requests": "asgi:requests:ip:gcra",
        "direct": "asgi:requests:key1:gcra",
    }.items()
}
HELD = ConcurrencyLimiter(PLACES, store=STORE, name="asgi:places:ip")


def counters() -> Counter[str]:
    found = Counter(handled)
    for what, limiter in LIMITERS.items():
        for name, count in limiter.table.counters().items():
            found[f"{what} {name}"] = count
    return found


async def watched(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    watch, before = Watch(), counters()
    while (message := await receive())["type"] == "websocket.receive":
        said: dict[str, Any] = {}
        if message["text"] == "start":
            before = counters()
            watch.start()
        elif message["text"] == "stop":
            said = await watch.stop()
            now = counters()
            said["counts"] = {name: now[name] - before[name] for name in now}
        said["held"] = HELD.table.keys  # by anybody
        said["handled"] = dict(handled)
        said["tasks"] = len(asyncio.all_tasks())
        await send({"type": "websocket.send", "text": json.dumps(said)})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket" and scope["path"] == "/watch":
        await watched(receive, send)
    else:
        await limited(scope, receive, send)
