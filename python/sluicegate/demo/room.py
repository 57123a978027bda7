"""The room: who is in it, and what each of them is told."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

from .names import name_of
from .outbox import Outbox

RECENT = 30  # messages that one who comes in is shown


class Member:
    """One connection in the room."""

    __slots__ = ("client", "hue", "name", "outbox")

    def __init__(self, client: str | bytes, name: str, hue: int, outbox: Outbox) -> None:
        self.client = client  # whose allowance it uses
        self.name = name
        self.hue = hue
        self.outbox = outbox


class Room:
    """Passes messages on."""

    def __init__(self) -> None:
        self._members: set[Member] = set()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._visitors = 0
        self._messages = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Messages that members too slow to read them missed."""
        return self._dropped

    @property
    def recent(self) -> list[dict[str, Any]]:
        """The last messages, oldest first."""
        return list(self._recent)

    def join(self, client: str | bytes, outbox: Outbox) -> Member:
        """A new member, with a name."""
        name, hue = name_of(self._visitors)
        self._visitors += 1
        member = Member(client, name, hue, outbox)
        self._members.add(member)
        return member

    def leave(self, member: Member) -> None:
        """Twice is harmless."""
        self._members.discard(member)

    async def say(self, sender: Member, text: str, allowance: dict[str, Any] | None) -> None:
        """Pass a message to everybody.

        The sender's copy always arrives. Those who share the sender's allowance are told
        how it stands; what a slow member has no room for, it misses.
        """
        self._messages += 1
        message = {
            "type": "message",
            "id": self._messages,
            "from": sender.name,
            "hue": sender.hue,
            "text": text,
            "at": round(time.time() * 1000),  # milliseconds of Unix time
            "own": False,
        }
        self._recent.append(message)
        shared = {**message, "allowance": allowance}
        for_others, for_client = json.dumps(message), json.dumps(shared)
        for member in self._members:
            if member is not sender:
                copy = for_client if member.client == sender.client else for_others
                if not member.outbox.offer(copy):
                    self._dropped += 1
        await sender.outbox.put(json.dumps({**shared, "own": True}))
