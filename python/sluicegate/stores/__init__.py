"""Where state lives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Union
from weakref import WeakSet

from .local import LocalStore, listed
from .memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._protocols import StoreUser
    from .redis import RedisStore

__all__ = ["LocalStore", "MemoryStore", "Store", "is_store", "open_found", "open_store"]

Store = Union[LocalStore, "RedisStore"]

_opened: dict[str, Store] = {}
_users: WeakSet[Any] = WeakSet()
_overrides: list[Store] = []


def is_store(object_: object) -> bool:
    """Whether it is a native store."""
    if isinstance(object_, LocalStore):
        return True
    # not imported before it is needed: it wants hiredis
    return any(kind.__name__ == "RedisStore" and kind.__module__ == "sluicegate.stores.redis.store"
               for kind in type(object_).__mro__)  # fmt: skip


def open_store(store: Any = None) -> Store:
    """The store that an argument `store=` means.

    None and "memory://" are the one default store of this process;
    "memory://?max_keys=1000&max_bytes=64MB&on_full=deny" is one of its own, the same for
    the same text; so is "shm:///run/app?size=64MB", a `SharedMemoryStore`, and "redis://..." or
    another URL of a `RedisStore`. A client of the
    packages redis or valkey lends its settings to a new RedisStore; a store is itself.
    ValueError for other URLs, TypeError for the rest.
    """
    if store is None:
        store = "memory://"
    if isinstance(store, str):
        opened = _opened.get(store)
        # setdefault: of two threads that come at once both get one store
        return opened or _opened.setdefault(store, _from_url(store))
    if is_store(store):
        return store  # type: ignore[no-any-return]
    if type(store).__module__.split(".")[0] in ("redis", "valkey"):
        from .redis import RedisStore

        return RedisStore(store)
    raise TypeError(
        "a store is a URL as 'memory://', 'shm:///run/app' or 'redis://localhost', a MemoryStore, "
        "a SharedMemoryStore, a RedisStore, a "
        f"client of the packages redis or valkey, or None, not {type(store).__name__}"
    )


def open_found(url: str) -> Store:
    """The store of a URL, for a look at what others keep there: a store of its own, which makes
    no file, whatever size is said, and clears none. Raises as `open_store` does."""
    return _from_url(url, make=False)


def _from_url(url: str, *, make: bool = True) -> Store:
    # not by urlsplit, whose errors have the password
    found = re.match(r"([a-z][a-z0-9+.-]*)://", url, re.IGNORECASE)
    scheme = found[1].lower() if found else ""
    if scheme == "memory":
        return _memory_from(url)
    if scheme == "shm":
        return _shared_from(url, make)
    if scheme == "unix" or scheme.startswith(("redis", "valkey")):
        from .redis import RedisStore

        return RedisStore(url)
    # the rest of it may hold a password
    raise ValueError(
        f"there is no store for {scheme or 'text without a scheme'}"
        f"{'://' if scheme else ''}: there are memory:// "
        f"(memory://?max_keys=100000&max_bytes=64MB&on_full=deny), shm:// "
        f"(shm:///run/app?size=64MB), redis://, rediss://, unix://, "
        f"valkey://, valkeys://, redis+sentinel:// and redis+cluster://"
    )


def _memory_from(url: str) -> MemoryStore:
    from urllib.parse import parse_qsl, urlsplit

    from ..quota import parse_size

    parts = urlsplit(url)
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


def _shared_from(url: str, make: bool) -> LocalStore:
    from urllib.parse import parse_qsl, unquote, urlsplit

    from .shared import SharedMemoryStore

    parts = urlsplit(url)
    if parts.netloc or parts.fragment or not parts.path.strip("/"):
        raise ValueError(
            "shm:// is followed by the whole path of a file, as in shm:///run/app?size=64MB"
        )
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in options:
            raise ValueError(f"shm:// has {name}= twice")
        if name in ("size", "on_full"):
            options[name] = value
        elif name == "keep":
            if value not in ("yes", "no"):
                raise ValueError(f"keep= is yes or no, not {value!r}")
            options[name] = value == "yes"
        else:
            raise ValueError(f"shm:// takes size, keep and on_full, not {name!r}")
    if not make:
        options = {"on_full": options.get("on_full", "deny")}
    return SharedMemoryStore(unquote(parts.path), **options, make=make)


def attach(user: StoreUser) -> None:
    """Makes it known to `override` and to `users`; weakly."""
    _users.add(user)
    if _overrides:
        user._use_store(_overrides[-1])


def users() -> Iterator[Any]:
    """Every limiter and concurrency limiter that lives."""
    return iter(listed(_users))


def override(store: Store) -> None:
    """Moves all users, and those to come, to that store. See sluicegate.testing."""
    _overrides.append(store)
    try:
        _move()
    except BaseException:
        restore(store)
        raise


def restore(store: Store) -> None:
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
