"""A Socket.IO server under the limits of a limiter: what `attach` puts around it.

python-socketio hands every connect, event and disconnect, of every namespace and kind of
handler, to one method of the server; its own admin instrumentation stands there too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..websocket.excess import REASON
from ..websocket.words import whole_seconds
from .sizes import event_size

if TYPE_CHECKING:
    from .limiter import SocketIOLimiter

__all__ = ["Guard"]

CONNECT, DISCONNECT = "connect", "disconnect"


class Guard:
    """One server, guarded by one limiter."""

    def __init__(self, limiter: SocketIOLimiter, sio: Any) -> None:
        self._limiter = limiter
        self._sio = sio
        self._trigger = sio._trigger_event
        self._end = sio._handle_eio_disconnect
        # A session of Engine.IO carries connections, one a namespace. Its end is seen here,
        # for connections that are still being set up then are told of no disconnect.
        self._sids: dict[Any, set[str]] = {}  # of a session
        self._session: dict[str, Any] = {}  # of a sid
        sio._trigger_event = self.trigger
        sio._handle_eio_disconnect = self.end
        if sio.eio.handlers.get(DISCONNECT) == self._end:  # else it is called by what is there
            sio.eio.on(DISCONNECT, self.end)

    async def trigger(self, event: Any, namespace: str, sid: str, *data: Any) -> Any:
        """In place of the server's own: the handlers see what is admitted."""
        # Clients may name their events as they like, also as these two: what is no connect
        # and no disconnect is an event, and one that nobody handles.
        if event == CONNECT:
            environ = self._sio.get_environ(sid, namespace)
            if environ is not None and data and data[0] is environ:
                return await self._connect(namespace, sid, *data)
        elif event == DISCONNECT and self._is_leaving(namespace, sid):
            return await self._disconnect(namespace, sid, *data)
        return await self._event(event, namespace, sid, *data)

    async def end(self, session: Any, *reason: Any) -> None:
        """In place of the server's own: a session of Engine.IO is over."""
        try:
            await self._end(session, *reason)
        finally:
            # what `_alive` looks at; a disconnect handler that raises leaves it there
            self._sio.environ.pop(session, None)
            for sid in list(self._sids.get(session, ())):
                await self._release(sid)

    async def _connect(self, namespace: str, sid: str, environ: Any, *auth: Any) -> Any:
        # The server tries a handler with and without `auth`, where there is none, and takes
        # a TypeError for the wrong one of both: that is one connection.
        first = sid not in self._session
        if first:
            await self._admit(namespace, sid, environ, auth[0] if auth else None)
        try:
            answer = await self._trigger(CONNECT, namespace, sid, environ, *auth)
        except TypeError:
            if not first or (auth and auth[0]):
                await self._release(sid)
            raise
        except BaseException:
            await self._release(sid)
            raise
        if answer is False:
            await self._release(sid)
        elif not self._alive(namespace, sid):
            await self._release(sid)
            if not self._sio.always_connect:  # else it has been connected, and disconnected
                return False
        return answer

    async def _admit(self, namespace: str, sid: str, environ: Any, auth: Any) -> None:
        """Registers the connection, or refuses it."""
        client = await self._limiter.client_of(environ, auth)
        if client is None:
            raise _refusal(float("inf"))
        decision = await self._limiter.decide_connect(sid, client)
        if not decision.allowed:
            raise _refusal(decision.retry_after)
        if not self._alive(namespace, sid):  # it went while the store was asked
            await self._limiter.on_disconnect(sid)
            raise _refusal(float("inf"))
        session = self._sio.manager.eio_sid_from_sid(sid, namespace)
        self._session[sid] = session
        self._sids.setdefault(session, set()).add(sid)

    def _alive(self, namespace: str, sid: str) -> bool:
        return self._sio.get_environ(sid, namespace) is not None

    def _is_leaving(self, namespace: str, sid: str) -> bool:
        """Whether the server says so, for the first time."""
        if self._sio.manager.is_connected(sid, namespace):
            return False
        return sid in self._session or sid not in self._limiter.sid_to_client

    async def _disconnect(self, namespace: str, sid: str, *reason: Any) -> Any:
        self._forget(sid)
        try:
            # Events run in tasks of their own: those that came before this did are to be
            # charged before, to a connection that is still known.
            await asyncio.sleep(0)
        finally:
            await self._limiter.on_disconnect(sid)
        return await self._trigger(DISCONNECT, namespace, sid, *reason)

    async def _event(self, event: Any, namespace: str, sid: str, *data: Any) -> Any:
        limiter = self._limiter
        decision, result = await limiter.limiter.decide_message(
            sid, event_size(event, data), cost=limiter.cost_of(event)
        )
        if not decision.allowed:
            if result.get("close"):
                await self._sio.disconnect(sid, namespace=namespace)
            return _notice(decision.retry_after)
        if event in (CONNECT, DISCONNECT):
            return self._sio.not_handled
        return await self._trigger(event, namespace, sid, *data)

    async def _release(self, sid: str) -> None:
        self._forget(sid)
        await self._limiter.on_disconnect(sid)

    def _forget(self, sid: str) -> None:
        session = self._session.pop(sid, None)
        sids = self._sids.get(session)
        if sids is not None:
            sids.discard(sid)
            if not sids:
                del self._sids[session]


def _notice(retry_after: float) -> dict[str, Any]:
    return {"error": "rate_limited", "retry_after": whole_seconds(retry_after)}


def _refusal(retry_after: float) -> Exception:
    from socketio import exceptions

    refusal: Exception = exceptions.ConnectionRefusedError(REASON, _notice(retry_after))
    return refusal
