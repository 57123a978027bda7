"""What the demo limits, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

from sluicegate.websocket import WebSocketLimits

FEED_CONNECTIONS = "30/minute"
FEED_CONCURRENT = 10  # dashboards a client
FEED_MESSAGES = "1/second burst 5"  # a dashboard only listens


@dataclass(frozen=True)
class DemoSettings:
    """Limits of one client, which is one address.

    `messages` and `connections` are rate strings; ValueError points at what is wrong.
    """

    messages: str = "1/second burst 10"
    connections: str = "60/minute"
    concurrent: int = 20  # open at the same time
    max_message_size: int = 4096  # bytes of a frame

    def __post_init__(self) -> None:
        if self.concurrent < 1:
            raise ValueError(f"concurrent must be 1 or more, not {self.concurrent}")
        if self.max_message_size < 64:
            raise ValueError(
                f"max_message_size must be 64 bytes or more, not {self.max_message_size}"
            )
        self.limits()  # what else is wrong shows now

    def limits(self) -> WebSocketLimits:
        """The limits of one client."""
        return WebSocketLimits(
            messages=self.messages,
            connections=self.connections,
            max_concurrent_connections=self.concurrent,
            max_message_size=self.max_message_size,
        )

    def in_words(self) -> list[str]:
        """The limits, one phrase each."""
        return [
            f"messages {self.messages}",
            f"connections {self.connections}",
            f"{self.concurrent} open at once",
            f"{self.max_message_size} bytes a message",
        ]
