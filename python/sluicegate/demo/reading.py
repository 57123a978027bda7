"""What the dashboard of the demo is told of the chat."""

from __future__ import annotations

from typing import Any

from sluicegate.observe import snapshot
from sluicegate.observe.live import TOP, of_connections

from .room import Room
from .watching import Watched


def read_chat(watched: Watched, room: Room) -> dict[str, Any]:
    """One reading, for a Sampler."""
    messages = snapshot({"messages": watched.messages}, top=TOP)["messages"]
    counters = messages["counters"]
    connections = of_connections(watched.statistics())
    return {
        "admitted": counters["admitted"],
        "refused": counters["refused"] + connections.pop("oversized"),
        **connections,
        "keys": counters["keys"],
        "bytes": counters["bytes"],
        "missed": room.dropped,
        "hottest": messages["hottest"],
        "most_refused": messages["most_refused"],
    }
