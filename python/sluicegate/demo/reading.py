"""What the dashboard of the demo is told of the chat."""

from __future__ import annotations

from typing import Any

from sluicegate.observe import snapshot
from sluicegate.observe.live import TOP

from .room import Room
from .watching import Watched


def read_chat(watched: Watched, room: Room) -> dict[str, Any]:
    """One reading, for a Sampler."""
    messages = snapshot({"messages": watched.messages}, top=TOP)["messages"]
    counters = messages["counters"]
    statistics = watched.statistics()
    violations = statistics["violations"]
    return {
        "admitted": counters["admitted"],
        # Sizes are refused before any quota is asked.
        "refused": counters["refused"] + violations.get("message_size", 0),
        "connections": statistics["active_connections"],
        "clients": statistics["unique_clients"],
        "turned_away": violations.get("concurrent_connections", 0)
        + violations.get("connection_rate", 0),
        "keys": counters["keys"],
        "bytes": counters["bytes"],
        "missed": room.dropped,
        "hottest": messages["hottest"],
        "most_refused": messages["most_refused"],
    }
