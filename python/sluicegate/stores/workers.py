"""Tells whether this process is one of several workers of a server.

Only what the server itself says is believed: the frames under which it runs the
application hold its settings. Other processes that a program starts are its own business.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from types import FrameType

__all__ = ["warn_of_workers", "worker_count"]

# module of a server's frame: the local that has its settings
_SERVERS = {
    "uvicorn._subprocess": "config",
    "gunicorn.arbiter": "self",
    "hypercorn.asyncio.run": "config",
    "hypercorn.trio.run": "config",
}

_warned: set[int] = set()  # process ids: a worker forked after the warning is one that warned


def warn_of_workers() -> None:
    """Warns, once, that each of several workers counts for itself."""
    if _warned:
        return
    count = worker_count()
    if count > 1:
        _warned.add(os.getpid())
        warnings.warn(
            f"this is one of {count} workers, and each counts in its own memory, so "
            f'up to {count} times a limit is admitted; a store="shm://..." that the workers '
            f"share (or a server, as redis://) holds it over all of them, "
            f"and so does running one worker",
            RuntimeWarning,
            stacklevel=_outside(),
        )


def worker_count() -> int:
    """How many workers the server that runs this process has; 1 where none can be told."""
    if not any(module in sys.modules for module in _SERVERS):
        return 1
    main = threading.main_thread().ident
    frame: FrameType | None = sys._current_frames().get(main) if main is not None else None
    while frame is not None:
        local = _SERVERS.get(frame.f_globals.get("__name__", ""))
        if local is not None:
            settings = frame.f_locals.get(local)
            # gunicorn's arbiter calls it num_workers
            count = getattr(settings, "num_workers", getattr(settings, "workers", None))
            if isinstance(count, int) and not isinstance(count, bool):
                return max(count, 1)
        frame = frame.f_back
    return 1


def _outside() -> int:
    """The stack level of the first caller that is not this package."""
    package = __name__.partition(".")[0]
    level, frame = 2, sys._getframe(2)  # 2: who called warn_of_workers
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        f"{package}."
    ):
        level, frame = level + 1, frame.f_back
    return level
