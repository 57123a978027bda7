"""The door of Socket.IO: python-socketio's AsyncServer under the limits of `websocket`."""

from .limiter import SocketIOLimiter
from .peer import client_ip

__all__ = ["SocketIOLimiter", "client_ip"]
