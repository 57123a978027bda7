"""The store on Redis and Valkey."""

from __future__ import annotations

from ... import _core

__all__ = ["Health", "RedisStore", "Registered"]

if not hasattr(_core, "HIREDIS"):
    raise RuntimeError(
        "this build of sluicegate has no path to Redis and Valkey, because the C library hiredis "
        "was not there when it was built. Install it (Debian, Ubuntu: apt-get install "
        "libhiredis-dev pkg-config; Fedora: dnf install hiredis-devel pkgconf; macOS: brew install "
        "hiredis pkg-config), then build again: SLUICEGATE_REDIS=1 pip install --force-reinstall "
        "--no-deps --no-binary sluicegate sluicegate"
    )

from .health import Health
from .registry import Registered
from .store import RedisStore
