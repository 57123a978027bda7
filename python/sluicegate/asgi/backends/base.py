"""What a backend is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from ..rule import Rule

__all__ = ["BaseBackend", "RetryAfter"]

# Counts a request for a path and a user: 0, or the whole seconds after which to come again.
# That of a rule with a zone counts for the zone, whatever the path.
RetryAfter = Callable[[str, Any], Awaitable[int]]


class BaseBackend(ABC):
    """Counts requests. A class of one's own has `retry_after` alone to write; that it is exact
    under concurrency is then its own affair."""

    @abstractmethod
    async def retry_after(self, path: str, user: str, rule: Rule) -> int:
        """Counts a request: 0 where the rule admits it, else the whole seconds after which to
        come again. `path` is the rule's zone where it has one."""

    def prepare(self, rule: Rule) -> RetryAfter:
        """`retry_after` for one rule, made ready once."""

        async def retry_after(path: str, user: Any) -> int:
            return await self.retry_after(path if rule.zone is None else rule.zone, user, rule)

        return retry_after
