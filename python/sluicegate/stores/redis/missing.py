"""What stands for the store in a build without hiredis."""

from __future__ import annotations

from typing import Any

__all__ = ["RedisStore"]


class RedisStore:
    """RuntimeError: this build has no path to servers, and how to build one that has."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise RuntimeError(
            "this build of sluicegate has no path to Redis and Valkey, because the C library "
            "hiredis was not there when it was built. Install it (Debian, Ubuntu: apt-get install "
            "libhiredis-dev pkg-config; Fedora: dnf install hiredis-devel pkgconf; macOS: brew "
            "install hiredis pkg-config), then build again: SLUICEGATE_REDIS=1 pip install "
            "--force-reinstall --no-deps --no-binary sluicegate sluicegate"
        )
