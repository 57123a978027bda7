"""A Socket.IO chat with rooms, under limits.

    pip install "sluicegate[socketio]" uvicorn
    uvicorn socketio_chat:app

A client is its address, and may have three connections, 20 messages at once and five a second
more; a search counts as ten. What is over a limit is answered with
{"error": "rate_limited", "retry_after": seconds} and reaches no handler.
"""

from collections import deque

import socketio

from sluicegate import SocketIOLimiter, WebSocketLimits

sio = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(sio)

limiter = SocketIOLimiter(
    WebSocketLimits(
        messages="5/second burst 20",
        bytes="64KB/minute",
        max_message_size=2000,
        max_concurrent_connections=3,
    ),
    costs={"search": 10},
)
limiter.attach(sio)

history = {room: deque(maxlen=100) for room in ("lobby", "attic")}  # its last words


@sio.event
async def join(sid, room):
    if room not in history:
        return {"error": "no_such_room"}
    await sio.enter_room(sid, room)
    return {"history": list(history[room])}


@sio.event
async def say(sid, room, text):
    if room not in sio.rooms(sid):
        return {"error": "not_there"}
    history[room].append(text)
    await sio.emit("said", {"room": room, "text": text}, room=room, skip_sid=sid)
    return {"sent": True}


@sio.event
async def search(sid, room, word):
    return {"found": [text for text in history.get(room, ()) if word in text]}
