"""A chat on Django Channels with rooms, under limits; a whole project in one file.

    pip install "sluicegate[channels]" django daphne
    daphne channels_chat:application

Who logs in is a client of that name, and others are their address. A client may have two
connections and 30 messages a minute; what is over a limit is told once, and a connection that
goes on all the same is closed.
"""

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from sluicegate import ChannelsRateLimiter, RateLimitedConsumerMixin, WebSocketLimits

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()


class Chat(RateLimitedConsumerMixin, AsyncJsonWebsocketConsumer):
    rate_limiter = ChannelsRateLimiter(
        WebSocketLimits(
            messages_per_minute=30, max_message_size=2000, max_concurrent_connections=2
        ),
        max_refusals="20/minute",
    )

    def get_client_id(self):
        user = self.scope.get("user")  # of Channels' AuthMiddlewareStack, where that is in use
        if user is not None and user.is_authenticated:
            return f"user:{user.pk}"
        return f"ip:{super().get_client_id()}"

    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive_json(self, content):
        await self.channel_layer.group_send(self.room, {"type": "said", "text": content["text"]})

    async def said(self, event):
        await self.send_json({"text": event["text"]})


application = ProtocolTypeRouter({"websocket": URLRouter([path("chat/<room>", Chat.as_asgi())])})
