"""State in memory that the workers of one machine share, without a server."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

from .. import _core
from .._support import DONE, Done
from ..quota import parse_size
from .layout import Layout, arrange, layout_of
from .local import LocalStore
from .registered import Known, Registered, from_json

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
    `make`: False takes only a file that is there, as it is: for who looks at what others use.

    A limiter needs a name: processes find its state by it. Each has a bound of its own, so
    that a flood at one forgets nothing of another: it may grow while it has less than four
    times what is free in the file, and then forgets its own least used keys.

    StoreError where the file cannot be used, or not safely: the message says why, and what to
    do. It goes on after fork, in any number of threads and event loops. A process that is
    killed leaves nothing half done, and its slots are free at once. A process that is stopped
    (SIGSTOP) while it decides holds others up for 20 ms, once; then `on_store_error` decides
    for the keys that share its lock, until it goes on.
    """

    __slots__ = ("_file", "_known", "_on_full", "_told_of", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int | str | None = None,
        *,
        keep: bool = True,
        on_full: Literal["deny", "allow", "raise"] = "deny",
        clock: _core.Clock | Callable[[], float] | None = None,
        make: bool = True,
    ) -> None:
        super().__init__(clock)
        self.path = os.path.abspath(os.fspath(path))
        if not isinstance(self.path, str):
            raise TypeError(f"path is a str or a path, not {type(path).__name__}")
        if not isinstance(keep, bool):
            raise TypeError(f"keep is a bool, not {type(keep).__name__}")
        if not isinstance(make, bool):
            raise TypeError(f"make is a bool, not {type(make).__name__}")
        if not make and (size is not None or not keep):
            raise ValueError("with make=False a file is taken as it is: without size= and keep=")
        bytes_ = 0 if size is None else parse_size(size)
        self._on_full = on_full
        self._known: dict[str, Known] = {}  # the limiters of this process, by name
        self._told_of: dict[tuple[str, bool], str] = {}  # what the file says by this process
        _core.Table((), on_full=on_full, clock=clock)  # what is wrong with them shows now
        self._file = _core.SharedFile(self.path, bytes_, keep, make)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    @property
    def processes(self) -> int:
        """How many live processes have the file open."""
        return self._file.processes

    def _make(self, name: str | None, algorithms: Sequence[str]) -> _core.Table:
        table = _core.Table(
            algorithms,
            on_full=self._on_full,
            clock=self.clock,
            shared=self._file,
            name=name,
            listener=partial(_told, self.path),
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

    def local(self, algorithms: Sequence[str]) -> _core.Table:
        """Private memory for the same algorithms."""
        return _core.Table(algorithms, on_full=self._on_full, clock=self.clock)

    def made(self, name: str | None, limiter: _core.Limiter) -> None:
        """Writes a limiter's numbers into the file, for `limiters` and the commands: of several
        of one name those that reach farthest."""
        self._known.setdefault(self._checked(name), Known()).limiter(limiter)
        self.changed(limiter)

    def made_slots(self, name: str | None, limit: int | None) -> None:
        """The same of a limiter of slots."""
        known = Known()
        known.slots(limit)
        self._tell(self._checked(name), (), known.as_json())

    def changed(self, limiter: _core.Limiter) -> None:
        """Writes them again, after an update."""
        for name, (table, _) in list(self._named.items()):
            if table is limiter.table and name in self._known:
                self._tell(name, table.algorithms, self._known[name].as_json())

    def _tell(self, name: str, algorithms: Sequence[str], text: str) -> None:
        place = (name, bool(algorithms))
        if self._told_of.get(place) != text:
            # opened for its text alone, which is beside the table's own state
            _core.Table(algorithms, shared=self._file, name=name, text=text)
            self._told_of[place] = text

    def limiters(self) -> list[Registered]:
        """Those that the file knows, of all processes that ever used it."""
        found = []
        for name, algorithms, text in self._file.limiters():
            known = Registered(
                name,
                (None,) * len(algorithms),
                algorithms,
                slots=None if algorithms else 0,
                told=not algorithms,
            )
            # a text that was cut, or that a killed process half wrote, leaves the numbers out
            with suppress(AttributeError, LookupError, RecursionError, TypeError, ValueError):
                told = from_json(name, text)
                if told.algorithms == algorithms:
                    known = told
            found.append(known)
        return found

    def table_of(self, known: Registered) -> _core.Table:
        """Where one of `limiters()` keeps its state. Nothing is told of it."""
        return _core.Table(
            known.algorithms,
            on_full=self._on_full,
            clock=self.clock,
            shared=self._file,
            name=known.name,
        )

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

    def __repr__(self) -> str:
        return f"SharedMemoryStore({self.path!r}, {self.size})"


# A function, so that the store is in no circle: its seat in the file is free as soon as it goes.
def _told(path: str, stalled: bool) -> None:
    if stalled:
        log.warning(
            "%s: a process that is stopped has a lock; the keys behind it are decided as "
            "on_store_error says, until it goes on or is ended",
            path,
        )
    else:
        log.warning("%s: the process goes on, and so do its keys", path)
