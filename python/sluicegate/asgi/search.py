"""Which rules apply to a scope, and what they decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from .. import _core
from ..limiter import Limiter
from .counting import Counting
from .entry import Applied, Entry, Refused, refusal_of
from .keys import USERS, key_of
from .matching import EVERYBODY, Held, Patterns, Rules, chosen
from .paths import path_of
from .responding import Headers
from .rule import Rule
from .types import Scope

__all__ = ["Outcome", "Search", "Straight", "Unknown"]

DEFAULT = "default"  # the group of whom nothing else is known


class Unknown(Exception):  # noqa: N818 - it carries an error
    """Who a scope is of cannot be told: what `authenticate` or a rule's key raised."""

    def __init__(self, error: Exception, rule_refuse: str) -> None:
        super().__init__()  # what the error says it may not be able to
        self.error = error
        self.refuse = rule_refuse


class Outcome(NamedTuple):
    """A refusal: the whole seconds to tell, by which rule, and the decision."""

    seconds: int
    rule: Rule
    decision: _core.Decision | None

    @property
    def refuse(self) -> str:
        """How a handshake is refused."""
        return self.rule.refuse


class Straight(NamedTuple):
    """What a request to a pattern is charged to where nothing but its address needs to be known:
    the usual case."""

    counting: Counting
    limiter: Limiter
    key: Callable[[str, str], str]  # of an address and a path
    by_path: bool  # the path ends the key


def is_exempt(held: Held) -> bool:
    """Whether a rule, by being there, frees whom it is for from all limits."""
    return held.counting is None and held.rule.unlimited and held.method is None


def _name_of(user: Any) -> str:
    return user if type(user) is str else str(user)


class ByGroup:
    """The same where the user needs to be known, and nothing else: what those of each group are
    charged to, None where they are unlimited. The first that is for a group is its own."""

    __slots__ = ("held", "ways")

    def __init__(self, held: Sequence[Held], ways: Sequence[Straight | None]) -> None:
        self.held = held
        self.ways = [(one.group, way) for one, way in zip(held, ways, strict=True)]

    def of(self, group: str) -> tuple[Straight | None] | None:
        """None where no rule is for that group."""
        for its, way in self.ways:
            if its in (group, EVERYBODY):
                return (way,)
        return None


class _Visit:
    """A request or handshake while it is looked for what holds it."""

    __slots__ = ("counted", "ended", "entry", "is_http", "scope", "watched", "who")

    def __init__(self, scope: Scope, entry: Entry, counted: str, is_http: bool) -> None:
        self.scope = scope
        self.entry = entry
        self.counted = counted  # the path that it counts under
        self.is_http = is_http
        self.who: tuple[Any, str] | None = None  # user and group
        self.ended: list[Rules] = []  # of patterns that ended the search for a spelling
        self.watched: list[Rules] = []  # of those that did not


class Search:
    """Finds the rules of a scope: the first pattern that matches its path and has a rule that
    fits it ends the search, shadow rules never do."""

    __slots__ = ("_address", "_authenticate", "_patterns", "_simply", "_straight")

    def __init__(
        self,
        patterns: Patterns,
        authenticate: Callable[[Scope], Any] | None,
        address: Callable[[Scope], str],
        *,
        simply: bool,
    ) -> None:
        self._patterns = patterns
        self._authenticate = authenticate
        self._address = address
        self._simply = simply  # one plain rule may be the backend's own affair
        self._straight = [
            (matches, self._at_once(rules.http)) for matches, _, rules in patterns if rules.http
        ]

    def gate(self, headers: Headers, *, by_peer: bool) -> _core.HttpGate:
        """What decides, in one call, the requests for which that can be done: see HttpGate.
        `by_peer`: the address is what the peer's host alone tells."""
        by_path = any(
            isinstance(straight, Straight) and straight.by_path for _, straight in self._straight
        )

        def usual(path: str) -> bool:
            counted, _, plain = path_of({"path": path})
            return plain and (counted == path or not by_path)

        return _core.HttpGate(
            [
                (matches, None, None, None, None, False)
                if not isinstance(straight, Straight)
                or not isinstance(straight.limiter, _core.Limiter)  # a backend's own
                else (
                    matches,
                    straight,
                    straight.limiter,
                    straight.counting.blocked,
                    straight.key,
                    straight.by_path,
                )
                for matches, straight in self._straight
            ],
            self._address,
            by_peer,
            headers,
            usual,
        )

    async def enter(self, scope: Scope, entry: Entry) -> Outcome | None:
        """Decides a request or handshake: None where it is admitted. Unknown."""
        counted, spellings, plain = path_of(scope)
        is_http = scope["type"] == "http"
        visit = _Visit(scope, entry, counted, is_http)
        if is_http and plain:
            path = scope["path"]
            for matches, straight in self._straight:
                if matches(path):
                    if type(straight) is Straight:
                        return await self._go_straight(
                            entry, straight, self._address(scope), counted
                        )
                    if type(straight) is ByGroup:
                        visit.who = await self._identify(scope, entry, straight.held)
                        way = straight.of(visit.who[1])
                        if way is not None:
                            (found,) = way
                            if found is None:
                                return None
                            return await self._go_straight(
                                entry, found, _name_of(visit.who[0]), counted
                            )
                    break
            else:
                return None
        for alike in spellings[:-1]:
            refused = await self._hold(visit, alike, for_now=True)
            if refused is not None:
                return refused
        refused = await self._hold(visit, spellings[-1], for_now=False)
        if refused is None:
            await entry.confirm()
        return refused

    async def _hold(self, visit: _Visit, alike: Sequence[str], *, for_now: bool) -> Outcome | None:
        """Decides by the first pattern that matches one of these texts and has rules that fit."""
        scope, entry = visit.scope, visit.entry
        # Werkzeug takes a method in any letters; what answers a GET answers a HEAD too
        method = str(scope.get("method") or "GET").upper()
        methods = (None, "GET", "HEAD") if method == "HEAD" else (None, method)
        for matches, _, rules in self._patterns:
            if not any(map(matches, alike)):
                continue
            if rules in visit.ended:  # another spelling was held to it
                break
            if rules in visit.watched:
                continue
            fitting = [
                held
                for held in (rules.http if visit.is_http else rules.websocket)
                if held.method in methods
            ]
            if not fitting:
                continue
            begun = False
            if visit.who is None and any(
                held.kind == "user" or held.group != EVERYBODY for held in fitting
            ):
                if self._authenticate is None:
                    visit.who = self._address(scope), DEFAULT
                else:
                    # an address is refused before anything is computed for it
                    early = [held for held in fitting if held.kind == "ip"]
                    fitting = [held for held in fitting if held.kind != "ip"]
                    first, shadows = chosen(early, EVERYBODY)
                    refused = await self._decide(visit, first, shadows, for_now=True)
                    if refused is not None:
                        return refused
                    begun = bool(first)
                    visit.who = await self._identify(scope, entry, fitting)
            first, shadows = chosen(fitting, EVERYBODY if visit.who is None else visit.who[1])
            refused = await self._decide(visit, first, shadows, for_now=for_now)
            if refused is not None:
                return refused
            if first or begun:
                visit.ended.append(rules)
                break
            visit.watched.append(rules)
        return None

    def _at_once(self, rules: Sequence[Held]) -> Straight | ByGroup | None:
        """How requests to a pattern are decided where that needs no search; else None."""
        first = rules[0]
        if first.kind == "user" and self._authenticate is not None:
            ways: list[Straight | None] = []
            for held in rules:
                way = self._straight_of(held)
                if held.kind != "user" or (way is None and not is_exempt(held)):
                    return None
                ways.append(way)
            return ByGroup(rules, ways)
        by_address = first.kind in ("ip", "user")
        if len(rules) > 1 or not by_address or first.group not in (EVERYBODY, DEFAULT):
            return None
        return self._straight_of(first)

    def _straight_of(self, held: Held) -> Straight | None:
        counting, rule = held.counting, held.rule
        if (
            counting is None
            or not counting.simple
            or held.method is not None
            or rule.cost is not None
            or (held.plain and self._simply and not held.by_store)
        ):
            return None
        charges = counting.charges("", "", 1, False)
        if len(charges) != 1:
            return None
        limiter = charges[0][0]
        where = counting.where
        if limiter is counting.requests:
            return Straight(counting, limiter, where.key, where.by_path)
        return Straight(counting, limiter, where.unit_key, where.zone is None)

    async def _go_straight(
        self, entry: Entry, straight: Straight, who: str, path: str
    ) -> Outcome | None:
        counting, limiter, key_of_both, _ = straight
        if counting.block(who) is not None:
            refused = await entry.admit_one(Applied(counting, who, path, 1))
            if refused is None:
                return None
            return Outcome(refused.seconds, counting.rule, refused.decision)
        decision = await limiter.hit(key_of_both(who, path))
        if decision.allowed:
            entry.decision = decision
            return None
        return await self._refused(straight, decision, who, path)

    async def refused_straight(
        self, scope: Scope, straight: Straight, decision: _core.Decision
    ) -> Outcome:
        """What follows of a refusal by address there."""
        return await self._refused(straight, decision, self._address(scope), path_of(scope)[0])

    async def _refused(
        self, straight: Straight, decision: _core.Decision, who: str, path: str
    ) -> Outcome:
        refused = await refusal_of(decision, (Applied(straight.counting, who, path, 1),))
        return Outcome(refused.seconds, straight.counting.rule, refused.decision)

    async def _decide(
        self, visit: _Visit, first: Sequence[Held], shadows: Sequence[Held], *, for_now: bool
    ) -> Outcome | None:
        entry, who = visit.entry, visit.who
        if self._simply and len(first) == 1 and first[0].plain and not shadows and not entry.rules:
            held = first[0]
            if held.retry_after is None or who is None:
                return None
            seconds = await held.retry_after(visit.counted, who[0])
            return Outcome(seconds, held.rule, None) if seconds > 0 else None
        if shadows:
            await entry.watch(await self._applied(visit, shadows))
        if not first:
            return None
        rules = await self._applied(visit, first)
        if not rules:  # whom no rule limits
            return None
        refused: Refused | None
        if len(rules) == 1 and rules[0].counting.simple and not for_now and not entry.rules:
            refused = await entry.admit_one(rules[0])
        else:
            refused = await entry.admit(rules, for_now=for_now)
        if refused is None:
            return None
        return Outcome(refused.seconds, refused.by.counting.rule, refused.decision)

    async def _applied(self, visit: _Visit, rules: Sequence[Held]) -> list[Applied]:
        scope = visit.scope
        found = []
        for held in rules:
            if held.counting is None:  # unlimited
                continue
            try:
                name = await self._who(scope, held, visit.who)
            except Exception as error:
                visit.entry.keep()
                raise Unknown(error, held.rule.refuse) from error
            cost = 1 if held.rule.cost is None else held.rule.cost(scope)
            if hasattr(cost, "__await__"):
                cost = await cost
            found.append(Applied(held.counting, name, visit.counted, cost))
        return found

    async def _who(self, scope: Scope, held: Held, who: tuple[Any, str] | None) -> str:
        if held.kind == "ip":
            return self._address(scope)
        if held.kind == "app":
            return "app"
        if held.kind == "user":
            assert who is not None
            return _name_of(who[0])
        return await key_of(held.rule.key, scope)

    async def _identify(
        self, scope: Scope, entry: Entry, fitting: Sequence[Held]
    ) -> tuple[Any, str]:
        assert self._authenticate is not None
        try:
            found: Any = self._authenticate(scope)
            if isinstance(found, Awaitable):
                found = await found
            user, group = found
            # What is neither would be nobody's, or of no group that a rule is for: no limit at all.
            if not isinstance(user, USERS) or isinstance(user, bool):
                raise TypeError(f"authenticate returned {type(user).__name__} for a user, not str")
            if not isinstance(group, str):
                raise TypeError(
                    f"authenticate returned {type(group).__name__} for a group, not str"
                )
        except Exception as error:
            await entry.confirm()
            raise Unknown(error, fitting[0].rule.refuse) from error
        except BaseException:
            entry.keep()
            raise
        return user, group
