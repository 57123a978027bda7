"""How flood reads a server's replies."""

from __future__ import annotations

import pytest

from sluicegate.cli.replies import Verdict, default_judge, judge_by

A, R, E, O = Verdict.ADMITTED, Verdict.REFUSED, Verdict.ERROR, Verdict.OTHER  # noqa: E741


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"type": "message", "own": true, "text": "rate limited?"}', A),
        ('{"type": "message", "own": false, "text": "x"}', O),
        ('{"type": "limited", "reason": "rate_limit_exceeded"}', R),
        ('{"type": "error", "reason": "invalid_json"}', E),
        ('{"type": "error", "reason": "rate_limit_exceeded"}', R),
        ('{"error": "rate_limited", "retry_after": 3}', R),
        ('{"error": "Too many requests"}', R),
        ('{"error": "no such room"}', E),
        ('{"error": null, "text": "hello"}', A),
        ('{"status": 429}', R),
        ('{"code": 4290}', A),
        ('{"text": "I was too fast and rate limited"}', A),  # what people say is not asked
        ('{"error": "rate limited"', R),  # cut short: a text that speaks of a limit
        ('["rate limited"]', R),
        ("hello", A),
        ("", A),
        (b"\xff\x00", A),
        ("WebSocket rate limit exceeded. Retry after 3 seconds.", R),
        (b"slow down!", R),
        ("the limit of my patience", A),
        ("{" * 5000, A),
    ],
)
def test_by_default(reply: str | bytes, verdict: Verdict) -> None:
    assert default_judge(reply)[0] is verdict


def test_reasons_are_short() -> None:
    assert default_judge('{"type": "limited", "reason": "' + "x" * 500 + '"}')[1] == "x" * 64
    assert default_judge('{"type": "limited", "reason": 5}')[1] == "limited"


@pytest.mark.parametrize(
    ("rule", "reply", "refused"),
    [
        ("/no+!/", "nooo!", True),
        ("/no+!/", b"nooo!", True),
        ("/no+!/", "yes", False),
        ("blocked", '{"blocked": true}', True),
        ("blocked", '{"blocked": false}', False),
        ("blocked", '{"open": true}', False),
        ("blocked", "blocked", False),
        ("kind=no", '{"kind": "no"}', True),
        ("kind=no", '{"kind": "nope"}', False),
        ("ok=false", '{"ok": false}', True),
        ("code=7", '{"code": 7}', True),
    ],
)
def test_by_a_rule(rule: str, reply: str | bytes, refused: bool) -> None:
    assert (judge_by(rule)(reply)[0] is R) is refused


def test_a_rule_leaves_the_rest_alone() -> None:
    assert judge_by("blocked")('{"error": "rate limited"}')[0] is A
    assert judge_by("blocked")('{"own": false}')[0] is O


@pytest.mark.parametrize("rule", ["", "  ", "/(/"])
def test_a_bad_rule(rule: str) -> None:
    with pytest.raises(ValueError, match=r"rule|regular expression"):
        judge_by(rule)
