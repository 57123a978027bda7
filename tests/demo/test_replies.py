"""How flood reads a server's replies."""

from __future__ import annotations

import json

import pytest

from sluicegate.cli.flood import _tell
from sluicegate.cli.pressing import Plan, Tally
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


@pytest.mark.parametrize(
    "said", ["[/] rate limit", "\x1b]0;mine\x07\x1b[2J rate limit", "\ud800 rate limit"]
)
def test_the_words_of_a_server_are_only_words(
    said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are told on a terminal: no markup, no escape sequence, nothing that has no UTF-8."""
    verdict, reason = default_judge(json.dumps({"error": said}))
    assert verdict is Verdict.REFUSED
    assert reason is not None
    assert reason.isprintable()
    assert reason.endswith("limit")
    plan = Plan("ws://127.0.0.1:1/", 1.0, 1, 1.0, lambda k: "x", default_judge)
    tally = Tally(step=plan.step)
    tally.reasons[reason] = tally.refused = 1
    _tell(plan, tally)
    told = capsys.readouterr().out
    assert reason in told
    assert "\x1b" not in told
