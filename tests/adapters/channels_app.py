"""The application that the tests of the Channels door talk to. Clients name themselves in the
path. CHANNELS_REDIS: the socket of a Redis server for the channel layer, else it is in memory.
LIMITS_STORE: the store of "echo"."""

from __future__ import annotations

import json
import os
from typing import Any

import django
from django.conf import settings

redis = os.environ.get("CHANNELS_REDIS")
settings.configure(
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [{"address": f"unix://{redis}"}]},
        }
        if redis
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    },
)
django.setup()

from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from sluicegate import (  # noqa: E402
    ChannelsRateLimiter,
    RateLimitedConsumerMixin,
    WebSocketLimits,
)

UNLIMITED: dict[str, Any] = {
    "connections_per_minute": None,
    "messages_per_minute": None,
    "max_concurrent_connections": None,
    "max_message_size": None,
}


def limits(**given: Any) -> WebSocketLimits:
    """Those given alone; all else is unlimited."""
    return WebSocketLimits(**{**UNLIMITED, **given})


events: list[str] = []


class Named(RateLimitedConsumerMixin):
    """A client is who its path says."""

    async def get_client_id(self) -> str:
        return str(self.scope["url_route"]["kwargs"]["client"])


class Echo(Named, AsyncWebsocketConsumer):
    """Its room hears what it says, by the channel layer."""

    rate_limiter = ChannelsRateLimiter(
        limits(messages_per_minute=100, max_concurrent_connections=3, max_message_size=64),
        os.environ.get("LIMITS_STORE"),
    )

    async def connect(self) -> None:
        self.room = f"room-{await self.get_client_id()}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        events.append(f"disconnect {self.room}")
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "boom":
            raise RuntimeError("boom")
        if text_data == "all":
            await self.channel_layer.group_send(self.room, {"type": "said", "text": text_data})
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=f"to {event['text']}")


class Json(Named, AsyncJsonWebsocketConsumer):
    rate_limiter = ChannelsRateLimiter(limits(max_message_size=64, messages_per_minute=10))
    on_excess = "drop"

    async def receive_json(self, content: Any, **about: Any) -> None:
        events.append("parsed")
        await self.send_json({"got": content})


class Closing(Named, AsyncWebsocketConsumer):
    """Its room speaks also to those that a limit has closed."""

    rate_limiter = ChannelsRateLimiter(limits(messages_per_minute=2, max_message_size=10))
    on_excess = "close"

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


class Refusing(Closing):
    rate_limiter = ChannelsRateLimiter(limits(max_message_size=10), max_refusals="2/minute")
    on_excess = "notify"

    def rate_limit_notice(self, notice: dict[str, Any]) -> str:
        return f"refused: {notice['reason']}"


class Sync(RateLimitedConsumerMixin, WebsocketConsumer):
    rate_limiter = ChannelsRateLimiter(limits(messages_per_minute=5, max_concurrent_connections=2))

    def get_client_id(self) -> str:
        return str(self.scope["url_route"]["kwargs"]["client"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)


class Peer(RateLimitedConsumerMixin, AsyncWebsocketConsumer):
    rate_limiter = ChannelsRateLimiter(limits(connections_per_minute=1))


class ByHand(AsyncWebsocketConsumer):
    """As the source shows it, and it fails."""

    rate_limiter = ChannelsRateLimiter(limits(max_concurrent_connections=2))

    async def connect(self) -> None:
        client = self.scope["url_route"]["kwargs"]["client"]
        if not await self.rate_limiter.check_connection(client):
            await self.close(code=1008)
            return
        await self.rate_limiter.register_connection(self.channel_name, client)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "boom":
            raise RuntimeError("boom")
        allowed = await self.rate_limiter.check_message(self.channel_name, text_data)
        await self.send(text_data=str(allowed))


CONSUMERS = {
    "echo": Echo,
    "json": Json,
    "closing": Closing,
    "refusing": Refusing,
    "sync": Sync,
    "peer": Peer,
    "by-hand": ByHand,
}


async def held(name: str, client: str) -> dict[str, Any]:
    limiter = CONSUMERS[name].rate_limiter
    return {
        "places": await limiter.limiter.count(client),
        "registered": limiter.limiter.get_client_connections(client),
        "watches": len(limiter._watches),
        "statistics": limiter.limiter.get_statistics(),
        "events": events,
    }


websockets = URLRouter(
    [path(f"{name}/<client>", consumer.as_asgi()) for name, consumer in CONSUMERS.items()]
)


async def http(scope: Any, receive: Any, send: Any) -> None:
    _, _, name, client = scope["path"].split("/")
    body = json.dumps(await held(name, client)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


application = ProtocolTypeRouter({"http": http, "websocket": websockets})
