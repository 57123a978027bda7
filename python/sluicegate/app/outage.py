"""A store that fails: said once when it begins, and once when it is over."""

from __future__ import annotations

import logging

__all__ = ["Outage", "logger"]

logger = logging.getLogger("sluicegate.app")


class Outage:
    """Whether the store of one limiter fails just now, and what is done about it meanwhile."""

    __slots__ = ("_now", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._now = False

    def begins(self, why: object, meanwhile: str) -> None:
        """The store has failed."""
        if not self._now:
            self._now = True
            logger.warning("the store of %s fails (%s); now: %s", self._what, why, meanwhile)

    def ends(self) -> None:
        """The store has decided."""
        if self._now:
            self._now = False
            logger.warning("the store of %s decides again", self._what)
