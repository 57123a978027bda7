"""What waits to be sent to one connection: bounded, so that a slow one holds up nobody."""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

STALLED_SECONDS = 20.0  # a peer that takes nothing for so long is gone


class Outbox:
    """A queue of texts and the task that sends them."""

    __slots__ = ("_queue", "_websocket", "dropped")

    def __init__(self, websocket: WebSocket, size: int) -> None:
        self._websocket = websocket
        self._queue: asyncio.Queue[str] = asyncio.Queue(size)
        self.dropped = 0

    def offer(self, text: str) -> bool:
        """Queue what can be missed; False when the queue is full, and it is dropped."""
        try:
            self._queue.put_nowait(text)
        except asyncio.QueueFull:
            self.dropped += 1
            return False
        return True

    async def put(self, text: str) -> None:
        """Queue what must arrive. Waits for room, which holds back this connection's own
        reading, and nobody else."""
        await self._queue.put(text)

    async def send_all(self) -> None:
        """Send until the connection ends; returns then."""
        try:
            while True:
                text = await self._queue.get()
                await asyncio.wait_for(self._websocket.send_text(text), STALLED_SECONDS)
        except (WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            # Starlette raises RuntimeError for a send after the close.
            return


async def serve(reading: asyncio.Task[None], sending: asyncio.Task[None]) -> None:
    """Run both until either ends; the other is cancelled. Raises what the reading raised."""
    tasks = {reading, sending}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not reading.cancelled() and (error := reading.exception()) is not None:
        raise error
