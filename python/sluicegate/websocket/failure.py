"""What happens when the store fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ..errors import StoreError, StoreFullError
from .plans import Plans
from .violations import log

__all__ = ["Failure", "Policy"]

Policy = Literal["raise", "allow", "deny", "local"]


class Failure:
    """A limiter's failure policy. Each change into and out of it is logged once."""

    __slots__ = ("_local", "_make", "_name", "_now", "policy")

    def __init__(self, policy: Policy, name: str, make: Callable[[], Plans]) -> None:
        if policy not in ("raise", "allow", "deny", "local"):
            raise ValueError(
                f"on_store_error is 'raise', 'allow', 'deny' or 'local', not {policy!r}"
            )
        self.policy = policy
        self._name = name
        self._make = make
        self._local: Plans | None = None
        self._now = False

    def begins(self, error: StoreError) -> Policy:
        """The store has failed: what is to be done."""
        if not self._now:
            self._now = True
            what = "is full" if isinstance(error, StoreFullError) else f"does not decide ({error})"
            log().warning("the store of limiter %r %s; now: %s", self._name, what, self.policy)
        return self.policy

    def ends(self) -> None:
        """The store has decided."""
        if self._now:
            self._now = False
            log().warning("the store of limiter %r decides again", self._name)

    @property
    def local(self) -> Plans:
        """The whole limits, in memory of this process alone."""
        if self._local is None:
            self._local = self._make()
        return self._local
