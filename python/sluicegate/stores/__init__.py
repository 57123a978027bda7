"""Where state lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from .memory import MemoryStore, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._protocols import StoreUser

__all__ = ["MemoryStore", "Store", "open_store"]

Store = MemoryStore  # what open_store returns; other stores join it

_opened: dict[str, MemoryStore] = {}
_users: WeakSet[Any] = WeakSet()
_overrides: list[MemoryStore] = []


def open_store(store: MemoryStore | str | None = None) -> MemoryStore:
    """The store that an argument `store=` means.

    None and "memory://" are the one default store of this process;
    "memory://?max_keys=1000&max_bytes=64MB&on_full=deny" is one of its own, the same for
    the same text; a store is itself. ValueError for other URLs, TypeError for the rest.
    """
    if store is None:
        store = "memory://"
    if isinstance(store, str):
        opened = _opened.get(store)
        # setdefault: of two threads that come at once both get one store
        return opened or _opened.setdefault(store, _from_url(store))
    if isinstance(store, MemoryStore):
        return store
    raise TypeError(
        f"a store is a URL as 'memory://', a MemoryStore or None, not {type(store).__name__}"
    )


def _from_url(url: str) -> MemoryStore:
    from urllib.parse import parse_qsl, urlsplit

    from ..quota import parse_size

    parts = urlsplit(url)
    if parts.scheme != "memory" or "://" not in url:
        # the rest of it may hold a password
        raise ValueError(
            f"there is no store for {parts.scheme or 'text without a scheme'}"
            f"{'://' if parts.scheme else ''}: this version has memory:// "
            f"(memory://?max_keys=100000&max_bytes=64MB&on_full=deny)"
        )
    if parts.netloc or parts.path.strip("/") or parts.fragment:
        raise ValueError("memory:// has neither host nor path: give a limiter a name instead")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in options:
            raise ValueError(f"memory:// has {name}= twice")
        if name == "max_keys":
            if not value.isdecimal():
                raise ValueError(f"max_keys= is a whole number, not {value!r}")
            options[name] = int(value)
        elif name == "max_bytes":
            options[name] = parse_size(value)
        elif name == "on_full":
            options[name] = value
        else:
            raise ValueError(f"memory:// takes max_keys, max_bytes and on_full, not {name!r}")
    return MemoryStore(**options)


def attach(user: StoreUser) -> None:
    """Makes it known to `override` and to `users`; weakly."""
    _users.add(user)
    if _overrides:
        user._use_store(_overrides[-1])


def users() -> Iterator[Any]:
    """Every limiter and concurrency limiter that lives."""
    return iter(listed(_users))


def override(store: MemoryStore) -> None:
    """Moves all users, and those to come, to that store. See sluicegate.testing."""
    _overrides.append(store)
    _move()


def restore(store: MemoryStore) -> None:
    """Ends the last override by that store."""
    for place in range(len(_overrides) - 1, -1, -1):
        if _overrides[place] is store:
            del _overrides[place]
            break
    _move()


def _move() -> None:
    store = _overrides[-1] if _overrides else None
    for user in users():
        user._use_store(store)
