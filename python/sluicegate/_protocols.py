"""What the parts ask of each other, for the type checker; not imported at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from . import _core
from .stores import Store
from .waiting import StoreClock

Outcome = TypeVar("Outcome", covariant=True)


class Wanted(Protocol):
    """What is waited for, and where its queue is."""

    @property
    def table(self) -> _core.Table: ...
    @property
    def key(self) -> bytes: ...
    @property
    def clock(self) -> StoreClock: ...

    def too_late(self, ahead: Sequence[Any], left: float) -> bool:
        """Whether, behind these claims, its turn cannot come in `left` seconds."""


class Claim(Wanted, Protocol[Outcome]):
    """What this process's memory has. Its methods decide; they never block."""

    def attempt(self, left: float) -> tuple[bool, Outcome, float]:
        """Tries once: whether that is the end of it, what it came to, and else in how
        many seconds to try again (inf: when woken). Nothing comes after `left` seconds."""

    def refusal(self, ahead: Sequence[Any]) -> Outcome:
        """What to say to who may not stand behind these claims, or not any longer."""


class ServerClaim(Wanted, Protocol[Outcome]):
    """The same of what a server has: it is asked."""

    def follows(self, other: Any) -> bool:
        """Whether another claim, asked just before it, is met wherever this one is."""

    async def attempt(self, left: float) -> tuple[bool, Outcome, float]: ...

    async def look(self) -> None:
        """Asks what `too_late` goes by."""

    async def refusal(self, ahead: Sequence[Any]) -> Outcome: ...


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None: ...


class StoreUser(Protocol):
    """What has state in a store: a limiter, a concurrency limiter."""

    def _use_store(self, store: Store | None) -> None:
        """Moves to that store; None: back to the one it was made with."""
