"""Settings of a client of the packages redis or valkey: it lends these, never a connection."""

from __future__ import annotations

import ssl
from typing import Any

from .settings import Node, Settings, tls_context

__all__ = ["is_client", "settings_of_client"]


def is_client(source: object) -> bool:
    """Whether it is one, without importing either package."""
    return any(
        kind.__module__.split(".")[0] in ("redis", "valkey")
        and kind.__name__ in ("Redis", "StrictRedis", "Valkey", "StrictValkey", "RedisCluster",
                              "ValkeyCluster", "ConnectionPool")
        for kind in type(source).__mro__
    )  # fmt: skip


def settings_of_client(client: Any) -> Settings:
    if not is_client(client):
        raise TypeError(
            "a RedisStore takes a URL, or a client of the packages redis or valkey, "
            f"not {type(client).__name__}"
        )
    if "Cluster" in type(client).__name__:
        return _of_cluster(client)
    pool = getattr(client, "connection_pool", client)
    options = dict(pool.connection_kwargs)
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        return _of_sentinel(pool, manager, options)
    node = _node(options)
    return Settings(kind="single", nodes=(node,), db=int(options.get("db") or 0),
                    **_common(options, _is_tls(pool)))  # fmt: skip


def _node(options: dict[str, Any]) -> Node:
    if options.get("path"):
        return Node(path=str(options["path"]))
    return Node(str(options.get("host") or "localhost"), int(options.get("port") or 6379))


def _of_sentinel(pool: Any, manager: Any, options: dict[str, Any]) -> Settings:
    sentinels = [one.connection_pool.connection_kwargs for one in manager.sentinels]
    return Settings(
        kind="sentinel",
        nodes=tuple(_node(one) for one in sentinels),
        master=str(pool.service_name),
        db=int(options.get("db") or 0),
        sentinel_username=sentinels[0].get("username"),
        sentinel_password=sentinels[0].get("password"),
        **_common(options, _is_tls(pool)),
    )


def _of_cluster(client: Any) -> Settings:
    manager: Any = getattr(client, "nodes_manager", None)
    known = manager.startup_nodes.values()
    options = dict(getattr(manager, "connection_kwargs", None) or client.connection_kwargs)
    nodes = tuple(Node(str(node.host), int(node.port)) for node in known)
    # the asynchronous client tells it by its kind of connection, the other by an option
    tls = "SSL" in getattr(options.get("connection_class"), "__name__", "") or bool(
        options.get("ssl")
    )
    return Settings(kind="cluster", nodes=nodes, **_common(options, tls))


def _is_tls(pool: Any) -> bool:
    return "SSL" in pool.connection_class.__name__


def _common(options: dict[str, Any], tls: bool) -> dict[str, Any]:
    provider = options.get("credential_provider")
    found: dict[str, Any] = {
        "scheme": "rediss" if tls else "redis",
        "username": options.get("username"),
        "password": options.get("password"),
    }
    if provider is not None:
        found["credentials"] = lambda: _login(provider.get_credentials())
    if tls:
        found["tls"] = options.get("ssl_context") or _context(options)
    return found


def _login(credentials: Any) -> tuple[str | None, str | None]:
    if isinstance(credentials, str):
        return None, credentials
    if len(credentials) == 1:
        return None, credentials[0]
    username, password = credentials
    return username, password


def _context(options: dict[str, Any]) -> ssl.SSLContext:
    reqs = options.get("ssl_cert_reqs", "required")
    if isinstance(reqs, int):
        reqs = "none" if reqs == ssl.CERT_NONE else "required"
    return tls_context(
        ca_certs=options.get("ssl_ca_certs"),
        certfile=options.get("ssl_certfile"),
        keyfile=options.get("ssl_keyfile"),
        cert_reqs=reqs or "none",
        check_hostname=bool(options.get("ssl_check_hostname", True)),
    )
