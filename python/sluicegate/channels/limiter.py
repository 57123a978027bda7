"""Limits of the connections and messages of Channels consumers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from .. import _core
from ..stores import Store
from ..websocket.failure import Policy
from ..websocket.limiter import Limits, WebSocketRateLimiter
from ..websocket.sizes import size_of
from ..websocket.tasks import TaskWatch, running_task
from ..websocket.violations import OnViolation
from ..websocket.words import client_key

__all__ = ["ChannelsRateLimiter"]


class ChannelsRateLimiter:
    """Limits of Django Channels consumers, which ask for themselves.

        if await limiter.check_connection(self.scope["client"][0]):
            await limiter.register_connection(self.channel_name, self.scope["client"][0])
            await self.accept()

    `RateLimitedConsumerMixin` does it for a consumer. The arguments are
    WebSocketRateLimiter's.

    A connection ends, and gives its place back, with `unregister_connection`. A consumer
    that fails is told of no disconnect: what is checked and registered in one task, as in
    `connect`, ends with that task too.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        storage: Store | str | None = None,
        on_violation: OnViolation | None = None,
        *,
        name: str = "websocket",
        on_store_error: Policy = "local",
        max_refusals: str | _core.Quota | None = None,
    ) -> None:
        need_channels("ChannelsRateLimiter")
        self.limiter = WebSocketRateLimiter(
            limits,
            storage,
            on_violation,
            name=name,
            on_store_error=on_store_error,
            max_refusals=max_refusals,
        )
        self._checked: WeakKeyDictionary[asyncio.Task[Any], str | bytes] = WeakKeyDictionary()
        self._watches: dict[str, TaskWatch] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def check_connection(self, client_ip: str | bytes) -> bool:
        """Whether the client may connect. A place is held for this task until it registers
        the connection, ends, or 10 s have passed."""
        return (await self.decide_connection(client_ip)).allowed

    async def decide_connection(self, client_ip: str | bytes) -> _core.Decision:
        """`check_connection`, with the decision; its `retry_after` is inf where no place is
        left."""
        decision = await self.limiter.decide_connection(client_ip)
        task = running_task()
        if decision.allowed and task is not None:
            self._checked[task] = client_key(client_ip)
        return decision

    async def register_connection(
        self,
        channel_name: str,
        client_ip: str | bytes,
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Registers a connection in the place that this task holds, else in a new one; False,
        and nothing registered, where none is left."""
        self._unwatch(channel_name)
        if not await self.limiter.register_connection(channel_name, client_ip, metadata):
            return False
        task = running_task()
        # One that has not checked may end at once, as those do that run one call for a
        # thread or under a timeout: there the connection would end with it.
        if task is not None and self._checked.pop(task, None) == client_key(client_ip):
            loop = task.get_loop()
            self._watches[channel_name] = TaskWatch(task, lambda: self._ended(channel_name, loop))
        return True

    async def check_message(self, channel_name: str, data: Any) -> bool:
        """Whether the message may pass; `data` is what was received, of any type."""
        result = await self.limiter.check_message(channel_name, size_of(data))
        return bool(result["allowed"])

    async def decide_message(
        self, channel_name: str, data: Any, *, cost: int = 1
    ) -> _core.Decision:
        """`check_message` of a message that counts as `cost` messages, with the decision."""
        decision, _ = await self.limiter.decide_message(channel_name, size_of(data), cost=cost)
        return decision

    async def unregister_connection(self, channel_name: str) -> None:
        """Gives the connection's place back. Twice is harmless."""
        self._unwatch(channel_name)
        await self.limiter.unregister_connection(channel_name)

    # ---- inside

    def _unwatch(self, channel_name: str) -> None:
        watch = self._watches.pop(channel_name, None)
        if watch is not None:
            watch.cancel()

    def _ended(self, channel_name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._watches.pop(channel_name, None)
        try:
            # of another thread, where the task has been collected there
            loop.call_soon_threadsafe(self._end, channel_name, loop)
        except RuntimeError:  # closed: what needs no loop can still be done
            ending = self.limiter.unregister_connection(channel_name)
            with suppress(StopIteration, RuntimeError):
                ending.send(None)
            ending.close()

    def _end(self, channel_name: str, loop: asyncio.AbstractEventLoop) -> None:
        ending = loop.create_task(self.limiter.unregister_connection(channel_name))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def need_channels(what: str) -> None:
    try:
        import channels  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{what} needs Django Channels: pip install "sluicegate[channels]"'
        ) from error
