"""State in memory that the workers of one machine share, without a server."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

from .. import _core
from .._support import DONE, Done
from ..quota import parse_size
from .layout import Layout, Quotas, arrange, layout_of
from .local import LocalStore
from .registered import Registered, as_json, from_json

__all__ = ["SharedMemoryStore"]

log = logging.getLogger("sluicegate")


class SharedMemoryStore(LocalStore):
    """State in a file that processes of one machine map into their memory: no server, and
    every process decides for itself, exactly, at the speed of memory.

    `path`: where the file is, best on a tmpfs (/dev/shm, /run). It is made when it is not
    there, for this user alone. `size`: its bytes, at least 4 MB, as an int or "64MB"; None
    takes a file as it is and makes one of 64 MB. All of it is allocated when it is made.
    `keep`: what earlier processes left in the file still counts; False lets the first one,
    while no other has the file open, start with it empty. After a reboot it is always empty.
    `on_full`: what a check comes to that finds no room, as in a `MemoryStore`.

    A limiter needs a name: processes find its state by it. Each has a bound of its own, so
    that a flood at one forgets nothing of another: it may grow while it has less than four
    times what is free in the file, and then forgets its own least used keys.

    StoreError where the file cannot be used, or not safely: the message says why, and what to
    do. It goes on after fork, in any number of threads and event loops. A process that is
    killed leaves nothing half done, and its slots are free at once. A process that is stopped
    (SIGSTOP) while it decides holds others up for 20 ms, once; then `on_store_error` decides
    for the keys that share its lock, until it goes on.
    """

    __slots__ = ("_file", "_on_full", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int | str | None = None,
        *,
        keep: bool = True,
        on_full: Literal["deny", "allow", "raise"] = "deny",
        clock: _core.Clock | Callable[[], float] | None = None,
    ) -> None:
        super().__init__(clock)
        self.path = os.path.abspath(os.fspath(path))
        if not isinstance(self.path, str):
            raise TypeError(f"path is a str or a path, not {type(path).__name__}")
        if not isinstance(keep, bool):
            raise TypeError(f"keep is a bool, not {type(keep).__name__}")
        bytes_ = 0 if size is None else parse_size(size)
        self._on_full = on_full
        _core.Table((), on_full=on_full, clock=clock)  # what is wrong with them shows now
        self._file = _core.SharedFile(self.path, bytes_, keep)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    @property
    def processes(self) -> int:
        """How many live processes have the file open."""
        return self._file.processes

    def _make(
        self, name: str | None, algorithms: Sequence[str], quotas: Sequence[_core.Quota | None]
    ) -> _core.Table:
        table = _core.Table(
            algorithms,
            on_full=self._on_full,
            clock=self.clock,
            shared=self._file,
            name=name,
            text=as_json(quotas, algorithms, slots=None if quotas else 0),
            listener=self._told,
        )
        if table.other_shape:
            warnings.warn(
                f"another limiter {name!r} in {self.path} has other algorithms, or another number "
                "of quotas: the two share nothing; give one of them another name",
                RuntimeWarning,
                stacklevel=2,
            )
        return table

    def _first_layout(self, name: str | None, quotas: Sequence[_core.Quota | None]) -> Layout:
        # the places that an earlier process gave to the names of these quotas
        for known in self.limiters():
            layout = layout_of(known.quotas)
            if known.name == name and known.quotas and arrange(layout, quotas) is not None:
                return layout
        return layout_of(quotas)

    def _checked(self, name: str | None) -> str:
        if name is None:
            raise ValueError(
                "a limiter over shared memory needs a name= : its state is found by it, by other "
                "processes and by this one after a restart"
            )
        return name

    def loose_name(self) -> str:
        """A name for a limiter that has none, and that `testing.override` brings here: nobody
        else's."""
        return f"override.{os.urandom(8).hex()}"

    def local(self, quotas: Quotas) -> _core.Table:
        """Private memory for the same quotas."""
        return _core.Table(layout_algorithms(quotas), on_full=self._on_full, clock=self.clock)

    def limiters(self) -> list[Registered]:
        """Those that the file knows, of all processes that ever used it."""
        found = []
        for name, algorithms, text in self._file.limiters():
            known = Registered(name, (None,) * len(algorithms), algorithms)
            # a text that was cut, or that a killed process half wrote, leaves the numbers out
            with suppress(AttributeError, LookupError, RecursionError, TypeError, ValueError):
                told = from_json(name, text)
                if told.algorithms == algorithms:
                    known = told
            found.append(known)
        return found

    def clear(self) -> Done:
        """Forgets all state of the file at once, also that of other processes (it need not be
        awaited). StoreError where a stopped process is in the way of some of it."""
        from ..waiting import wake_table

        self._file.clear()
        for _, table in self.tables():
            wake_table(table)
        return DONE

    def check(self) -> list[str]:
        """Walks all state in the file and tells what cannot be: of a good file, nothing."""
        return self._file.check()

    def _told(self, stalled: bool) -> None:
        if stalled:
            log.warning(
                "%s: a process that is stopped has a lock; the keys behind it are decided as "
                "on_store_error says, until it goes on or is ended",
                self.path,
            )
        else:
            log.warning("%s: the process goes on, and so do its keys", self.path)

    def __repr__(self) -> str:
        return f"SharedMemoryStore({self.path!r}, {self.size})"


def layout_algorithms(quotas: Quotas) -> list[str]:
    return [algorithm for _, algorithm in layout_of(quotas)]
