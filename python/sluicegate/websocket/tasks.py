"""When a task is over."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["TaskWatch", "running_loop", "running_task"]


class TaskWatch:
    """Calls back once when a task ends, however it ends, also when it is collected unfinished.

    The task is held weakly: loops hold pending tasks weakly too, and one that nothing can
    wake any more must be collected, not kept by what watches it.
    """

    __slots__ = ("__weakref__", "_callback", "_loop", "_task")

    def __init__(self, task: asyncio.Task[Any], callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback
        self._loop = task.get_loop()
        self._task: weakref.ref[asyncio.Task[Any]] | None = weakref.ref(task, self._over)
        task.add_done_callback(self._over)

    @property
    def over(self) -> bool:
        """Whether it will not run again, though nothing may have said so yet."""
        task = None if self._task is None else self._task()
        return task is None or task.done() or self._loop.is_closed()

    def cancel(self) -> None:
        self._callback = None
        reference, self._task = self._task, None
        task = None if reference is None else reference()
        if task is not None:
            task.remove_done_callback(self._over)

    def _over(self, task: object) -> None:
        callback, self._callback = self._callback, None
        self._task = None
        if callback is not None:
            callback()


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def running_task() -> asyncio.Task[Any] | None:
    """The task that runs; None outside of any. RuntimeError under another loop library, whose
    tasks would end unseen."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        sniffio = sys.modules.get("sniffio")  # not there: no such library runs
    if sniffio is not None:
        try:
            library = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            return None
        raise RuntimeError(
            f"connections are limited on asyncio, and {library} runs here: "
            "run the application under asyncio"
        )
    return None
