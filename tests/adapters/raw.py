"""WebSocket clients of the worst kind: bare sockets, which vanish."""

from __future__ import annotations

import asyncio
import socket
import struct

MASK = b"\0\0\0\0"


class Raw:
    """A socket after its handshake. It answers no ping and sends no close frame."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    @classmethod
    async def connect(cls, port: int, path: str, headers: str = "") -> Raw:
        """`headers`: more of them, each line with its end."""
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.wait_for(loop.sock_connect(connection, ("127.0.0.1", port)), 20)
            request = (
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
            )
            await loop.sock_sendall(connection, request.encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = await asyncio.wait_for(loop.sock_recv(connection, 4096), 20)
                if not part:
                    raise ConnectionError("closed during the handshake")
                answer += part
            if not answer.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(answer.decode(errors="replace"))
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def send_text(self, text: str) -> None:
        data = text.encode()
        assert len(data) < 126
        frame = bytes((0x81, 0x80 | len(data))) + MASK + data
        await asyncio.get_running_loop().sock_sendall(self.socket, frame)

    def reset(self) -> None:
        """Gone at once: the kernel sends RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Gone without a close frame: the kernel sends FIN."""
        self.socket.close()
