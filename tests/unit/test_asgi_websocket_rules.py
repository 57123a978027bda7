"""Which rules of the middleware apply to a WebSocket or a request, to whom, and together with
which others; on a clock and without a server."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import AsyncExitStack
from typing import Any

import pytest

from calling import Answer, Dialog, call, echo, hello, turns
from sluicegate import MemoryStore, Quota
from sluicegate.asgi import (
    BaseBackend,
    EmptyInformation,
    MemoryBackend,
    RateLimitMiddleware,
    Rule,
    StoreBackend,
)
from sluicegate.testing import Clock, record


async def both(scope: Any, receive: Any, send: Any) -> None:
    await (hello if scope["type"] == "http" else echo)(scope, receive, send)


class Door:
    """A middleware on a clock. A scope is of the user and group that its headers name."""

    def __init__(self, config: Any, **options: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.asked = 0
        options.setdefault("authenticate", self.who)
        options.setdefault("backend", self.store)
        config = config if isinstance(config, dict) else {"": list(config)}
        self.app = RateLimitMiddleware(both, config=config, **options)

    async def who(self, scope: Any) -> tuple[str, str]:
        self.asked += 1
        await asyncio.sleep(0)
        named = {name: value.decode() for name, value in scope["headers"]}
        if b"user" not in named:
            raise EmptyInformation(scope)
        return named[b"user"], named.get(b"group", "default")

    def scope(self, user: str | None, group: str, ip: str, **more: Any) -> dict[str, Any]:
        headers = [] if user is None else [(b"user", user.encode()), (b"group", group.encode())]
        return {"headers": [*headers, *more.pop("headers", ())], "client": (ip, 1), **more}

    async def get(
        self,
        path: str = "/",
        user: str | None = "ada",
        group: str = "default",
        ip: str = "203.0.113.9",
        method: str = "GET",
        **more: Any,
    ) -> Answer:
        return await call(self.app, path, method, **self.scope(user, group, ip, **more))

    async def passes(self, count: int = 1, path: str = "/", **who: Any) -> int:
        """How many of that many requests do."""
        answers = [await self.get(path, **who) for _ in range(count)]
        assert {answer.status for answer in answers} <= {200, 429}
        return [answer.status for answer in answers].count(200)

    def dial(
        self,
        path: str = "/",
        user: str | None = "ada",
        group: str = "default",
        ip: str = "203.0.113.9",
        **more: Any,
    ) -> Dialog:
        return Dialog(self.app, path, **self.scope(user, group, ip, **more))

    async def connects(self, count: int = 1, path: str = "/", **who: Any) -> int:
        """How many of that many WebSockets do, one after the other."""
        found = 0
        for _ in range(count):
            async with self.dial(path, **who) as client:
                found += client.accepted
                assert client.accepted or client.answer["status"] == 429
        return found


# ---- a rule


def test_a_rule_as_it_is_made() -> None:
    rule = Rule(
        group="*", requests=["5/minute", Quota(9, 60)], messages="1/second; 1MB/hour",
        bytes=("1KB/second", "1MB/minute"), max_message_size="64KB", connections="1/minute",
    )  # fmt: skip
    assert rule.max_message_size == 65536
    assert [(q.name, q.limit) for q in rule.quotas("requests")] == [
        ("requests", 5), ("requests 2", 9),
    ]  # fmt: skip
    assert [(q.name, q.limit, q.period) for q in rule.quotas("bytes")] == [
        ("bytes", 1024, 1.0), ("bytes 2", 2**20, 60.0),
    ]  # fmt: skip
    assert rule.quotas("connections")[0].algorithm == "gcra"
    assert rule.quotas("max_refusals") == ()
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert len({rule, Rule(requests="1/second"), Rule(requests="1/second")}) == 2
    assert not rule.unlimited
    assert Rule(key="ip", group="*").unlimited
    assert (Rule().on_excess, Rule().refuse, Rule().max_delay) == ("close", "deny", 10)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"requests": "5/fortnight"}, ValueError, "requests: "),
        ({"requests": 5}, TypeError, "requests: "),
        ({"messages": ""}, ValueError, "messages: "),
        ({"bytes": []}, ValueError, "bytes: "),
        ({"connections": "0/minute"}, ValueError, "connections: "),
        ({"messages": "a: 1/second", "bytes": "a: 1KB/second"}, ValueError, "named 'a'"),
        ({"concurrent": 0}, ValueError, "concurrent is 1 to"),
        ({"concurrent": 1.5}, TypeError, "concurrent is a number"),
        ({"concurrent": True}, TypeError, "concurrent is a number"),
        ({"max_message_size": 0}, ValueError, "max_message_size: "),
        ({"max_message_size": "64 apples"}, ValueError, "max_message_size: "),
        ({"max_message_size": 1.5}, TypeError, "max_message_size: "),
        ({"messages": "1/second", "on_excess": "explode"}, ValueError, "'drop', 'delay' or"),
        ({"messages": "1/second", "refuse": "ignore"}, ValueError, "'deny' or 'close'"),
        ({"messages": "1/second", "per": "user"}, ValueError, "'pattern' or 'path'"),
        ({"messages": "1/second", "key": "header"}, ValueError, "'user', 'ip', 'app' or"),
        ({"messages": "1/second", "key": None}, ValueError, "key is"),
        ({"messages": "1/second", "shadow": 1}, TypeError, "shadow is a bool"),
        ({"messages": "1/second", "cost": 2}, TypeError, "cost is a function"),
        ({"requests": "1/second", "count_when": 401}, TypeError, "count_when is a function"),
        ({"messages": "1/second", "notify": "no"}, TypeError, "notify is a function"),
        ({"messages": "1/second", "notify": print}, ValueError, "on_excess='notify'"),
        ({"messages": "1/second", "max_delay": 0}, ValueError, "max_delay"),
        ({"messages": "1/second", "max_delay": float("inf")}, ValueError, "max_delay is finite"),
        ({"messages": "1/second", "max_refusals": "x"}, ValueError, "max_refusals: "),
        # what would do nothing
        ({"requests": "1/second", "on_excess": "drop"}, ValueError, "on_excess is of messages"),
        ({"concurrent": 1, "max_refusals": "1/second"}, ValueError, "max_refusals is of messages"),
        ({"messages": "1/second", "count_when": bool}, ValueError, "count_when does nothing"),
        ({"concurrent": 1, "cost": len}, ValueError, "cost does nothing"),
        ({"shadow": True}, ValueError, "shadow does nothing"),
        ({"messages": "1/second", "block_time": 5}, ValueError, "block_time does nothing"),
        ({"second": 1, "block_time": 5, "shadow": True}, ValueError, "block_time does nothing"),
        ({"requests": "1/second", "key": "ip", "group": "vip"}, ValueError, "every group"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Rule(**given)


# ---- requests and handshakes


async def test_requests_are_counted_by_pattern_or_by_path() -> None:
    door = Door({"/a": [Rule(requests="3/minute")], "/b": [Rule(requests="2/minute", per="path")]})
    assert await door.passes(2, "/a/1") + await door.passes(2, "/a/2") == 3
    assert await door.passes(3, "/b/1") == await door.passes(3, "/b/2") == 2
    assert await door.passes(4, "/a/1", user="eve") == 3


async def test_a_zone_replaces_either() -> None:
    door = Door(
        {
            "/a": [Rule(requests="3/minute", zone="z")],
            "/b": [Rule(requests="3/minute", zone="z", per="path")],
        }
    )
    assert await door.passes(2, "/a") + await door.passes(2, "/b/1") == 3
    assert await door.passes(1, "/b/2") == 0


async def test_a_handshake_counts_once_as_a_connection_else_as_a_request() -> None:
    door = Door(
        {
            "/both": [Rule(requests="9/minute", connections="2/minute")],
            "/requests": [Rule(requests="3/minute")],
            "/units": [Rule(minute=3)],
            "/messages": [Rule(messages="1/minute")],
        }
    )
    assert await door.connects(4, "/both") == 2
    assert await door.passes(10, "/both") == 9
    assert await door.connects(1, "/requests") == await door.passes(1, "/requests") == 1
    assert await door.connects(1, "/requests") == 1
    assert await door.connects(1, "/requests") == await door.passes(1, "/requests") == 0
    assert await door.connects(2, "/units") + await door.passes(2, "/units") == 3
    assert await door.connects(5, "/messages") == 5


async def test_a_handshake_is_a_get() -> None:
    door = Door([Rule(requests="1/minute", method="POST"), Rule(requests="2/minute", method="get")])
    assert await door.connects(3) == 2
    assert await door.passes(2, method="POST") == 1
    assert await door.passes(2, method="PUT") == 2


async def test_a_rule_of_websockets_is_none_for_requests() -> None:
    door = Door(
        {
            "/ws": [Rule(messages="1/minute", concurrent=1), Rule(requests="2/minute")],
            "/x": [Rule(connections="1/minute")],
            "/": [Rule(requests="1/minute")],
        }
    )
    assert await door.passes(3, "/ws") == 2
    assert await door.connects(5, "/ws") == 5  # by the first alone
    assert await door.passes(3, "/x") == 1  # by the last
    assert await door.connects(3, "/x") == 1


async def test_several_patterns_the_first_with_a_rule_holds() -> None:
    door = Door(
        {
            "/ws/big": [Rule(connections="1/minute", group="vip")],
            "/ws": [Rule(connections="2/minute"), Rule(group="admin")],
            "": [Rule(connections="3/minute", group="*")],
        }
    )
    assert await door.connects(4, "/ws/big") == 2
    assert await door.connects(4, "/ws/big", user="vic", group="vip") == 1
    assert await door.connects(4, "/ws", user="vic", group="vip") == 3
    assert await door.connects(9, "/ws", user="root", group="admin") == 9
    assert await door.connects(4, "/elsewhere") == 3


# ---- keys


async def test_each_key_counts_what_it_says() -> None:
    async def room(scope: Any) -> bytes:
        await asyncio.sleep(0)
        return dict(scope["headers"])[b"room"]

    def tenant(scope: Any) -> int:
        return int(dict(scope["headers"])[b"tenant"])

    door = Door(
        {
            "/user": [Rule(requests="1/minute")],
            "/ip": [Rule(requests="1/minute", key="ip")],
            "/app": [Rule(requests="1/minute", key="app", group="*")],
            "/room": [Rule(requests="2/minute", key=room, group="*"),
                      Rule(requests="3/minute", key=tenant, group="*")],
        }
    )  # fmt: skip
    assert await door.passes(2, "/user") == await door.passes(2, "/user", user="eve") == 1
    assert await door.passes(2, "/ip") == 1
    assert await door.passes(1, "/ip", user="eve") == 0
    assert await door.passes(2, "/ip", ip="203.0.113.10") == 1
    assert await door.passes(2, "/app") == 1
    assert await door.passes(2, "/app", user="eve", ip="203.0.113.10") == 0

    async def in_room(name: bytes, number: bytes, count: int) -> int:
        headers = [(b"room", name), (b"tenant", number)]
        return await door.passes(count, "/room", user=None, headers=headers)

    assert await in_room(b"1", b"2", 3) == 2  # of another function the same text is another key
    assert await in_room(b"2", b"2", 3) == 1
    assert await in_room(b"\xff", b"4", 3) == await in_room(b"\xfe", b"5", 3) == 2


async def test_no_user_is_taken_for_an_address_or_a_path_for_a_pattern() -> None:
    door = Door(
        {
            "/a": [Rule(requests="1/minute"), Rule(requests="9/minute", key="ip")],
            "": [Rule(requests="1/minute", per="path")],
        }
    )
    for user in ("203.0.113.9", "ip", "app", "pattern:* x", "zone", ""):
        assert await door.passes(2, "/a", user=user, ip=f"203.0.113.{len(user)}") == 1
    assert await door.passes(2, "/b", user="pattern:*") == 1
    assert await door.passes(2, "/b c", user="x") == await door.passes(2, "c", user="x /b") == 1


@pytest.mark.parametrize("found", [None, True, 1.5, ["x"]])
async def test_a_key_that_could_be_nobodys_is_an_error_of_authentication(found: Any) -> None:
    door = Door([Rule(requests="1/minute", key=lambda scope: found, group="*")])
    with pytest.raises(TypeError, match="a rule's key returned"):
        await door.get()
    seen = []

    async def who(error: Exception) -> Any:
        seen.append(error)
        return hello

    door = Door([Rule(requests="1/minute", key=lambda scope: found, group="*")], on_auth_error=who)
    assert (await door.get()).body == b"hello"
    assert isinstance(seen[0], TypeError)


async def test_an_address_of_ones_own() -> None:
    door = Door(
        [Rule(requests="1/minute", key="ip")],
        authenticate=None,
        address=lambda scope: dict(scope["headers"])[b"real"].decode(),
    )
    for real in (b"a", b"b"):
        headers = [(b"real", real)]
        assert await door.passes(2, user=None, headers=headers) == 1
    door = Door([Rule(requests="1/minute")], authenticate=None, address=lambda scope: "one")
    assert await door.passes(2, ip="203.0.113.1") == 1
    assert await door.passes(2, ip="203.0.113.2") == 0


# ---- together


async def test_the_first_rule_of_each_key_applies_and_all_are_one_decision() -> None:
    door = Door(
        [
            Rule(requests="3/minute", group="vip"),
            Rule(requests="4/minute", group="*"),
            Rule(requests="1/minute"),  # never: another of its key comes first
            Rule(requests="6/minute", key="app"),
        ]
    )
    assert await door.passes(4, user="vic", group="vip") == 3
    # of ada's five one is refused by her own rule, and takes nothing of the application's
    door.clock.advance(60)
    assert await door.passes(9) == 4
    assert await door.passes(9, user="eve") == 2


async def test_one_decision_over_addresses_and_users_too() -> None:
    door = Door([Rule(requests="5/minute", key="ip"), Rule(requests="2/minute")])
    for user, expected in (("ada", 2), ("eve", 2), ("bob", 1), ("zoe", 0)):
        assert await door.passes(3, user=user) == expected
    assert await door.passes(3, user="zoe", ip="203.0.113.10") == 2


async def test_addresses_are_refused_before_anybody_is_authenticated() -> None:
    door = Door({"/login": [Rule(requests="2/minute", key="ip", group="*"), Rule(minute=9)]})
    for asked, status in ((1, 200), (2, 200), (2, 429), (2, 429)):
        assert (await door.get("/login")).status == status
        assert door.asked == asked
    async with door.dial("/login") as client:
        assert not client.accepted
    assert door.asked == 2


async def test_who_cannot_be_authenticated_has_cost_his_address_a_unit() -> None:
    door = Door([Rule(requests="3/minute", key="ip"), Rule(requests="9/minute")])
    for _ in range(3):
        with pytest.raises(EmptyInformation):
            await door.get(user=None)
    assert (await door.get(user=None)).status == 429
    assert (await door.get()).status == 429
    assert (await door.get(ip="203.0.113.10")).status == 200


async def test_an_address_that_counts_ends_the_search_for_every_group() -> None:
    door = Door(
        {
            "/a": [Rule(requests="5/minute", key="ip"), Rule(requests="1/minute", group="vip")],
            "/": [Rule(requests="1/minute")],
        }
    )
    assert await door.passes(6, "/a") == 5
    assert await door.passes(2, "/a", user="vic", group="vip", ip="203.0.113.10") == 1


async def test_what_is_admitted_is_charged_though_nothing_is_answered() -> None:
    async def stay(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    door = Door([Rule(requests="2/minute", key="ip"), Rule(requests="9/minute")])
    door.app.app = stay
    for _ in range(2):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(door.get(), 0.01)
    assert (await door.get()).status == 429


async def test_where_only_addresses_count_nobody_is_authenticated() -> None:
    door = Door({"/login": [Rule(requests="1/minute", key="ip")], "/": [Rule(minute=1)]})
    assert await door.passes(2, "/login", user=None) == 1
    assert await door.connects(1, "/login", user=None, ip="203.0.113.10") == 1
    door = Door([Rule(requests="1/minute", key="app", group="*")])
    assert await door.passes(2, user=None) == 1
    assert door.asked == 0


async def test_an_exempt_group_is_held_to_the_rules_of_other_keys() -> None:
    door = Door(
        [Rule(group="admin"), Rule(requests="1/minute"), Rule(requests="3/minute", key="ip")]
    )
    assert await door.passes(5, user="root", group="admin") == 3
    assert await door.passes(5, ip="203.0.113.10") == 1


async def test_of_many_at_once_exactly_the_limit_passes() -> None:
    door = Door(
        [Rule(requests="9/minute", key="ip"), Rule(requests="7/minute", count_when=lambda s: True),
         Rule(requests="5/minute", key="app")]
    )  # fmt: skip
    answers = await asyncio.gather(*(door.get() for _ in range(30)))
    assert [answer.status for answer in answers].count(200) == 5
    door.clock.advance(60)
    answers = await asyncio.gather(*(door.get() for _ in range(30)))
    assert [answer.status for answer in answers].count(200) == 5


async def test_units_and_rates_of_a_rule_are_one_decision() -> None:
    door = Door([Rule(second=2, requests="3/minute", hour=9)])
    assert await door.passes(3) == 2
    door.clock.advance(1)
    assert await door.passes(3) == 1


async def test_a_request_may_cost_more() -> None:
    def cost(scope: Any) -> int:
        return 5 if scope["path"] == "/search" else 1

    door = Door([Rule(requests="8/minute", connections="6/minute", cost=cost)])
    assert await door.passes(2, "/search") == 1
    assert await door.passes(9, "/") == 3
    assert await door.connects(2, "/search") == 1
    assert await door.connects(2, "/") == 1


async def test_a_cost_that_is_none_is_an_error_and_charges_nothing() -> None:
    costs: list[Any] = ["much", -1, 1]
    door = Door([Rule(requests="1/minute", cost=lambda scope: costs.pop(0))])
    for error in (TypeError, ValueError):
        with pytest.raises(error):
            await door.get()
    assert (await door.get()).status == 200


# ---- shadows


async def test_a_shadow_rule_never_ends_the_search_and_never_refuses() -> None:
    door = Door(
        {
            "/a": [Rule(requests="1/minute", shadow=True), Rule(concurrent=1, shadow=True)],
            "/": [Rule(requests="3/minute", shadow=True), Rule(requests="2/minute")],
        }
    )
    with record() as decisions:
        assert await door.passes(3, "/a") == 2
    shadows = [one for one in decisions if one.limiter.shadow]
    assert all(one.decision.allowed for one in shadows)
    assert [one.decision.shadow for one in shadows] == [
        False, False, True, False, True, False,
    ]  # fmt: skip


async def test_a_shadow_rule_beside_the_first_of_its_key() -> None:
    door = Door([Rule(requests="1/minute", key="ip", shadow=True), Rule(requests="3/minute")])
    assert await door.passes(5) == 3
    assert await door.connects(5, user="eve") == 3


async def test_shadow_rules_alone_pass_everything() -> None:
    door = Door([Rule(second=1, requests="1/minute", connections="1/minute", shadow=True)])
    assert await door.passes(5) == await door.connects(5) == 5


# ---- what was there before


async def test_a_block_holds_for_websockets_and_for_every_rule() -> None:
    door = Door(
        {
            "/login": [Rule(requests="2/minute", block_time=30)],
            "/ws": [Rule(messages="5/minute")],
            "/free": [Rule(group="*")],
        }
    )
    assert await door.passes(2, "/login") == 2
    assert (await door.get("/login")).retry_after == 30
    door.clock.advance(10)
    assert (await door.get("/login")).retry_after == 20
    assert await door.connects(1, "/ws") == 0
    assert await door.connects(1, "/free") == 1
    door.clock.advance(20)
    assert await door.connects(1, "/ws") == await door.passes(1, "/login") == 1


async def test_an_address_may_be_blocked_and_is_no_user() -> None:
    door = Door(
        {
            "/login": [Rule(requests="1/minute", key="ip", block_time=30)],
            "/a": [Rule(requests="9/minute", key="ip")],
            "/b": [Rule(requests="9/minute")],
        }
    )
    assert await door.passes(2, "/login") == 1
    assert await door.passes(1, "/a") == 0
    assert await door.passes(1, "/b") == 1
    for user in ("203.0.113.9", "ip 203.0.113.9"):
        assert await door.passes(1, "/b", user=user) == 1
    assert await door.passes(1, "/a", ip="203.0.113.10") == 1


async def test_a_backend_of_ones_own_has_the_rules_of_its_source() -> None:
    class Mine(BaseBackend):
        async def retry_after(self, path: str, user: str, rule: Rule) -> int:
            return 7 * (user == "eve")

    door = Door({"": [Rule(minute=1)]}, backend=Mine())
    assert await door.connects(1) == await door.passes(1) == 1
    assert (await door.get(user="eve")).retry_after == 7
    assert await door.connects(1, user="eve") == 0
    for rule in (Rule(messages="1/second"), Rule(minute=1, key="ip"), Rule(concurrent=1)):
        with pytest.raises(TypeError, match="Mine counts second= to month="):
            Door([rule], backend=Mine())
    with pytest.raises(TypeError, match="headers need a store"):
        Door([Rule(minute=1)], backend=Mine(), headers="x")


async def test_other_rules_from_the_next_request_on() -> None:
    rate = "{}/minute using fixed-window"
    door = Door([Rule(requests=rate.format(2)), Rule(messages="1/minute", key="ip")])
    assert await door.passes(2) == 2
    async with door.dial(user="eve") as client:
        door.app.use({"": [Rule(requests=rate.format(3))]})
        client.put("a", "b")
        await turns()
        assert client.sent()[-1]["code"] == 1008  # by the rules that it began with
        client.leave()
    assert await door.passes(2) == 1  # what was counted still counts
    with pytest.raises(ValueError, match="no regular expression"):
        door.app.use({"(": []})
    with pytest.raises(TypeError):
        door.app.use([Rule()])
    assert await door.passes(1, user="bob") == 1


async def test_a_shadow_over_a_store_that_fails_holds_nothing_back() -> None:
    store = MemoryStore(max_keys=16, on_full="raise", clock=Clock())
    shadow = Rule(requests="2/minute", messages="5/minute", concurrent=1, shadow=True)
    door = Door([shadow], backend=store)
    for n in range(200):
        assert await door.passes(1, user=f"user{n}") == 1
        async with door.dial(user=f"other{n}") as client:
            client.put("a")
            await turns()
            assert [one["text"] for one in client.sent()] == ["a"]


async def test_two_middlewares_of_a_store_share_what_they_count() -> None:
    door = Door([Rule(requests="3/minute"), Rule(requests="9/minute", key="ip")])
    other = Door(
        [Rule(requests="3/minute"), Rule(requests="9/minute", key="ip")], backend=door.store
    )
    assert await door.passes(2) + await other.passes(2) == 3
    named = Door([Rule(requests="3/minute")], backend=StoreBackend(door.store, name="other"))
    assert await named.passes(4) == 3


async def test_a_user_keeps_his_count_when_his_group_changes() -> None:
    rate = "{}/minute using fixed-window"
    door = Door([Rule(requests=rate.format(2)), Rule(requests=rate.format(4), group="vip")])
    assert await door.passes(3) == 2
    assert await door.passes(5, group="vip") == 2


# ---- what passes untouched


@pytest.mark.parametrize("kind", ["lifespan", "something-new"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    rules = [Rule(requests="1/minute", messages="1/minute", concurrent=1, key="app", group="*")]
    door = RateLimitMiddleware(app, config={"": rules})
    given = ({"type": kind}, object(), object())
    for _ in range(3):
        await door(*given)  # type: ignore[arg-type]
    assert seen == [given] * 3


async def test_what_no_rule_limits_passes_untouched() -> None:
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    door = RateLimitMiddleware(
        app, config={"/ws": [Rule(connections="9/minute")], "/free": [Rule()]}
    )
    for path in ("/ws", "/free", "/elsewhere"):
        given = ({"type": "websocket", "path": path}, object(), object())
        await door(*given)  # type: ignore[arg-type]
        assert seen.pop() == given


# ---- a store that fails


async def test_a_full_store_is_held_by_memory_of_its_own() -> None:
    """The rules of this section do not raise: "local" holds them in this process."""
    store = MemoryStore(max_keys=16, on_full="raise", clock=Clock())
    door = Door([Rule(concurrent=1, key="ip")], backend=store)
    async with AsyncExitStack() as stack:
        for n in range(100):
            client = await stack.enter_async_context(door.dial(ip=f"203.0.113.{n}"))
            assert client.accepted
        assert await door.connects(1, ip="203.0.113.99") == 0


async def test_a_policy_that_is_given_holds_for_all_rules() -> None:
    backend = StoreBackend(MemoryStore(), on_store_error="deny")
    door = Door([Rule(requests="1/minute"), Rule(minute=1, key="app")], backend=backend)
    limiters = [
        limiter
        for _, _, rules in door.app._patterns
        for held in rules.http
        if held.counting is not None
        for limiter in (held.counting.requests, *held.counting._units)
        if limiter is not None
    ]
    assert {limiter.on_store_error for limiter in limiters} == {"deny"}
    default = Door([Rule(requests="1/minute"), Rule(minute=1, key="app")], backend=MemoryBackend())
    assert {
        held.counting._clocked.on_store_error
        for _, _, rules in default.app._patterns
        for held in rules.http
        if held.counting is not None
    } == {"local"}
