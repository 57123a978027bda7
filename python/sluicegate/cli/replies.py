"""What a server's reply says about the message it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

Reply = str | bytes


class Verdict(Enum):
    """What became of a message."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    ERROR = "error"  # answered by an error that speaks of no limit
    OTHER = "other"  # no answer to a message of ours


Judge = Callable[[Reply], tuple[Verdict, str | None]]
# A reason goes with a refusal or an error where the reply names one.

_LIMIT = re.compile(
    r"rate[\s_-]*(?:limit|exceed)|limit(?:ed|[\s_-]*exceeded)|too[\s_-]*(?:many|fast|large)"
    r"|throttl|slow[\s_-]*down|bandwidth[\s_-]*exceeded|quota[\s_-]*exceeded|\b429\b",
    re.IGNORECASE,
)
_TELLING = ("type", "error", "reason", "code", "status", "event", "detail")
_REASON = ("reason", "error", "detail", "code", "type")
_REASON_CHARACTERS = 64


def default_judge(reply: Reply) -> tuple[Verdict, str | None]:
    """Knows the demo's protocol, and guesses at others.

    A JSON object is refused when its type, error, reason, code, status, event or detail
    speaks of a limit, and an error when it has a type or key `error` that does not; a text
    is refused when it speaks of a limit. Everything else counts as admitted, except what
    says that it is not ours (`"own": false`).
    """
    value = _json_object(reply)
    if value is None:
        text = reply if isinstance(reply, str) else reply.decode("utf-8", "replace")
        return (Verdict.REFUSED, None) if _LIMIT.search(text) else (Verdict.ADMITTED, None)
    if value.get("own") is False:
        return Verdict.OTHER, None
    if value.get("type") == "message":
        return Verdict.ADMITTED, None
    if any(_LIMIT.search(str(value[key])) for key in _TELLING if key in value):
        return Verdict.REFUSED, _reason(value)
    if value.get("error") or value.get("type") == "error":
        return Verdict.ERROR, _reason(value)
    return Verdict.ADMITTED, None


def judge_by(rule: str) -> Judge:
    """A judge from `--refused-if`.

    `/regex/` searches the reply's text, `key=value` wants a JSON object whose `key` reads
    so, and `key` one whose `key` is there and true. Raises ValueError for a bad regex or
    an empty rule.
    """
    if not rule.strip():
        raise ValueError("the rule is empty: give /regex/, key=value or key")
    if len(rule) > 1 and rule.startswith("/") and rule.endswith("/"):
        try:
            pattern = re.compile(rule[1:-1])
        except re.error as error:
            raise ValueError(f"{rule} is no regular expression: {error}") from None

        def by_pattern(reply: Reply) -> bool:
            text = reply if isinstance(reply, str) else reply.decode("utf-8", "replace")
            return pattern.search(text) is not None

        return _judge(by_pattern)
    key, equals, wanted = rule.partition("=")

    def by_key(reply: Reply) -> bool:
        value = _json_object(reply)
        if value is None or key not in value:
            return False
        found = value[key]
        if not equals:
            return bool(found)
        return wanted == (found if isinstance(found, str) else json.dumps(found))

    return _judge(by_key)


def _judge(refused: Callable[[Reply], bool]) -> Judge:
    def judge(reply: Reply) -> tuple[Verdict, str | None]:
        value = _json_object(reply)
        if refused(reply):
            return Verdict.REFUSED, _reason(value) if value else None
        if value is not None and value.get("own") is False:
            return Verdict.OTHER, None
        return Verdict.ADMITTED, None

    return judge


def _json_object(reply: Reply) -> dict[str, Any] | None:
    start = reply[:1]
    if start not in ("{", b"{"):
        return None
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reason(value: dict[str, Any]) -> str | None:
    for key in _REASON:
        found = value.get(key)
        if isinstance(found, str) and found:
            # it is shown on a terminal, which the server must not command
            return "".join(c if c.isprintable() else "?" for c in found[:_REASON_CHARACTERS])
    return None
