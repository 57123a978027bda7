"""Counting in Redis or Valkey."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .store import StoreBackend

__all__ = ["RedisBackend"]


class RedisBackend(StoreBackend):
    """Counts in a server of Redis or Valkey: a URL, a client (whose settings are taken), a
    native store; or `host`, `port`, `db`, `password` and `ssl`. The rest is StoreBackend's.
    """

    def __init__(
        self,
        redis: Any = None,
        *,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        ssl: bool = False,
        **options: Any,
    ) -> None:
        if redis is None:
            redis = _url(host, port, db, password, ssl)
        elif (host, port, db, password, ssl) != ("localhost", 6379, 0, None, False):
            raise TypeError("give a URL, client or store, or else host, port and so on")
        super().__init__(redis, **options)


def _url(host: str, port: int, db: int, password: str | None, ssl: bool) -> str:
    if ":" in host:  # IPv6
        host = f"[{host}]"
    login = "" if password is None else f":{quote(password, safe='')}@"
    return f"redis{'s' * bool(ssl)}://{login}{host}:{int(port)}/{int(db)}"
