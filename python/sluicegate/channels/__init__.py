"""The door of Django Channels: its consumers under the limits of `websocket`."""

from .consumer import RateLimitedConsumerMixin
from .limiter import ChannelsRateLimiter

__all__ = ["ChannelsRateLimiter", "RateLimitedConsumerMixin"]
