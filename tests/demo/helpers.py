"""What the tests of the demo share."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

import serving

Start = Callable[..., serving.Server]

SECONDS = 30.0  # the bound of every wait


def get(url: str) -> tuple[dict[str, str], str]:
    """Headers (lower case) and body of a page."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return headers, answer.read().decode()


def metric(server: serving.Server, name: str, **labels: str) -> float:
    """One sample of /metrics."""
    wanted = ",".join(f'{label}="{value}"' for label, value in labels.items())
    text = get(f"{server.http}/metrics")[1]
    found = re.search(rf"^{name}\{{{re.escape(wanted)}\}} (\S+)$", text, re.MULTILINE)
    assert found, f"{name}{{{wanted}}} is not in\n{text}"
    return float(found[1])


def decisions(server: serving.Server, outcome: str) -> int:
    """Messages that the server's own counters say were admitted or refused."""
    return int(
        metric(server, "sluicegate_decisions_total", limiter="chat.messages", outcome=outcome)
    )


def loads(text: str | bytes) -> dict[str, Any]:
    value = json.loads(text)
    assert isinstance(value, dict)
    return value
