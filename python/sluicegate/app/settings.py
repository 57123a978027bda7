"""The numbers, from the environment."""

from __future__ import annotations

try:
    from pydantic import Field
    from pydantic_settings import BaseSettings, SettingsConfigDict
except ImportError as error:
    raise ImportError(
        'RateLimitSettings needs pydantic-settings: pip install "sluicegate[app]"'
    ) from error

__all__ = ["RateLimitSettings"]


class RateLimitSettings(BaseSettings):
    """Read when it is made: a keyword, else the environment variable of that name, else the
    default. pydantic's ValidationError for numbers that make no sense."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    RATE_LIMIT_ENABLED: bool = True
    """Whether HTTP requests are limited."""
    RATE_LIMIT_PER_MINUTE: int = Field(default=60, ge=1)
    """Requests a minute."""
    RATE_LIMIT_BURST: int = Field(default=10, ge=0)
    """How many more a minute may have."""
    WS_MAX_CONNECTIONS_PER_USER: int = Field(default=5, ge=1)
    """WebSocket connections of a user at once."""
    WS_MESSAGE_RATE_LIMIT: int = Field(default=100, ge=1)
    """WebSocket messages of a user a minute."""
