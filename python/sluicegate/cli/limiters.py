"""The limiters that a store knows, and what the commands do to their keys."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable, Coroutine, Sequence
from math import isinf
from typing import TYPE_CHECKING, Any, TypeVar, Union

import click

from sluicegate.errors import StoreError
from sluicegate.observe import escape_key, unescape_key
from sluicegate.stores import LocalStore, open_found
from sluicegate.stores.shared import SharedMemoryStore

from .explain import quota_text
from .found import Found, Looked
from .words import duration

if TYPE_CHECKING:
    from sluicegate.stores.redis import RedisStore
    from sluicegate.stores.registered import Registered

__all__ = [
    "CommandStore",
    "found_in",
    "key_command",
    "labels",
    "limiters_named",
    "nothing_known",
    "parts_of",
    "place_of",
    "quotas_in_words",
    "rounded",
    "run",
    "shown",
    "standing",
    "store_option",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CommandStore = Union[SharedMemoryStore, "RedisStore"]


def as_key(ctx: click.Context, param: click.Parameter, value: str) -> bytes:
    """The callback of an argument that is a key as the commands show it: any bytes, escaped."""
    try:
        return unescape_key(os.fsencode(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def store_option(command: F) -> F:
    """`--store URL`, or $SLUICEGATE_STORE."""
    return click.option(
        "--store",
        "url",
        envvar="SLUICEGATE_STORE",
        metavar="URL",
        help="Where the limiters are, as redis://localhost?prefix=sg or shm:///run/app. A URL with "
        "a password is better kept out of the command line: the variable is $SLUICEGATE_STORE.",
    )(command)


def key_command(command: F) -> F:
    """The arguments of what is done to one key of a limiter."""
    for add in (
        store_option,
        click.argument("key", callback=as_key, metavar="KEY"),
        click.argument("limiter", metavar="LIMITER"),
    ):
        command = add(command)
    return command


async def found_in(store: CommandStore) -> list[Found]:
    """All limiters that the store knows."""
    if isinstance(store, SharedMemoryStore):
        from .shared import found_in_file

        return found_in_file(store)
    from .server import OnServer

    return [OnServer(store, known) for known in await store.limiters()]


def parts_of(found: Sequence[Found], name: str) -> list[Found]:
    """Those of a WebSocketRateLimiter "chat" are called "chat.messages" and so on, those of a
    backend "asgi" "asgi:minute"."""
    return [one for one in found if one.name.startswith((f"{name}.", f"{name}:"))]


async def limiters_named(store: CommandStore, name: str) -> list[Found]:
    """That limiter, or all parts of it."""
    listed = await found_in(store)
    found = [one for one in listed if one.known.name == name] or parts_of(listed, name)
    if found:
        return found
    names = [shown(one.name) for one in listed]
    asked = escape_key(os.fsencode(name))
    if not names:
        raise click.ClickException(f"{nothing_known(store)}, so there is no {asked!r}.")
    near = difflib.get_close_matches(asked, names, 1)
    raise click.ClickException(
        f"there is no limiter {asked!r} in {place_of(store)}"
        f"{f'; did you mean {near[0]!r}?' if near else '.'} "
        f"There {'are' if len(names) > 1 else 'is'} {', '.join(names)}."
    )


def place_of(store: CommandStore) -> str:
    """Where a store keeps its limiters."""
    if isinstance(store, SharedMemoryStore):
        return escape_key(os.fsencode(store.path))
    return f"{store.settings.where()} under the prefix {store.prefix!r}"


def nothing_known(store: CommandStore) -> str:
    """Why a store may know no limiter."""
    if isinstance(store, SharedMemoryStore):
        return f"no process has made a limiter in {place_of(store)} yet"
    return (
        f"no limiter is known in {place_of(store)} "
        "(a process tells of its limiters a few seconds after their first check, and is "
        "forgotten a minute after its end; another prefix is given as ?prefix=)"
    )


def run(url: str | None, work: Callable[[CommandStore], Coroutine[Any, Any, T]]) -> T:
    """What `work` comes to with the store of a command; errors in words."""
    if not url:
        raise click.UsageError(
            "which store? Say --store redis://localhost:6379/0 or --store shm:///run/app, or set "
            "SLUICEGATE_STORE."
        )
    try:
        store = open_found(url)
    except (StoreError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    if isinstance(store, LocalStore) and not isinstance(store, SharedMemoryStore):
        raise click.ClickException(
            "memory:// is the memory of the process that limits, which no other can look into; "
            "the commands are for shm://, redis:// and valkey://."
        )

    async def opened() -> T:
        async with store:
            return await work(store)

    try:
        return asyncio.run(opened())
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def quotas_in_words(known: Registered) -> str:
    """What a limiter holds its keys to."""
    if not known.told:
        return f"{', '.join(known.algorithms) or 'slots'}, of numbers that are not known"
    words = [quota_text(quota) for quota in known.quotas if quota is not None]
    if known.slots is not None:
        words.append(f"{known.slots} at once" if known.slots else "slots")
    said = "; ".join(words) or "unlimited"
    return f"{said} (and other numbers under this name)" if known.various else said


def standing(looked: Looked) -> str:
    """How a key stands, in a few words."""
    decision = looked.decision
    after = decision.retry_after
    again = "never" if isinf(after) else f"in {rounded(after)}"
    if decision.allowed:
        return "admitted"
    return f"banned, ends {again}" if looked.banned else f"refused, again {again}"


def rounded(seconds: float) -> str:
    """A time of three digits at most, in words."""
    return duration(float(f"{seconds:.3g}"))


def shown(name: str) -> str:
    """The name of a limiter, escaped as keys are."""
    return escape_key(name.encode("utf-8", "surrogatepass"))


def labels(known: Registered) -> Sequence[str]:
    """What each quota is called in a list."""
    return ["" if quota is None else (quota.name or quota_text(quota)) for quota in known.quotas]
