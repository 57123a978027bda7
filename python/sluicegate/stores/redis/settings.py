"""Where a server is and how to log in, from a URL or from another library's client."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["SCHEMES", "Node", "Settings", "settings_of"]

PORT, SENTINEL_PORT = 6379, 26379

# scheme: (kind, whether TLS)
SCHEMES = {
    f"{server}{'s' if tls else ''}{ending}": (kind, tls)
    for server in ("redis", "valkey")
    for tls in (False, True)
    for ending, kind in (("", "single"), ("+sentinel", "sentinel"), ("+cluster", "cluster"))
} | {"unix": ("single", False)}

_OPTIONS = (
    "db",
    "prefix",
    "sentinel_username",
    "sentinel_password",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)

_ESCAPE = "in a user or a password / is written as %2F, ? as %3F, # as %23, @ as %40, [ as %5B"

Credentials = Callable[[], "tuple[str | None, str | None]"]


@dataclass(frozen=True)
class Node:
    """One server: a host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """All that is needed to open a connection. Its repr has no password."""

    kind: str  # "single", "sentinel" or "cluster"
    nodes: tuple[Node, ...]
    scheme: str = "redis"
    master: str = ""  # the name that sentinels know it by
    db: int = 0
    prefix: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    server_hostname: str | None = None  # for TLS; None: the host
    credentials: Credentials | None = field(default=None, repr=False)

    def where(self) -> str:
        """For errors and logs: what was asked for, without who asks."""
        nodes = ",".join(map(str, self.nodes))
        if self.nodes[0].path:
            return f"unix://{nodes}" + (f"?db={self.db}" if self.db else "")
        ending = f"/{self.master}" if self.master else ""
        return f"{self.scheme}://{nodes}{ending}" + (f"/{self.db}" if self.db else "")

    def login(self) -> tuple[str | None, str | None]:
        """User and password as they are now."""
        if self.credentials is not None:
            return self.credentials()
        return self.username, self.password


def settings_of(source: Any, tls: ssl.SSLContext | None = None) -> Settings:
    """Settings of a URL, or of a client of the packages redis or valkey.

    ValueError for a URL that makes no sense (its text, which may hold a password, is not in
    the error), TypeError for another object.
    """
    if isinstance(source, str):
        settings = _of_url(source)
    else:
        from .clients import settings_of_client

        settings = settings_of_client(source)
    return settings if tls is None else replace(settings, tls=tls)


def _of_url(url: str) -> Settings:
    try:
        parts = urlsplit(url)
    except ValueError:  # whose text may have the password
        raise ValueError(f"this URL of a store cannot be read: {_ESCAPE}") from None
    if parts.scheme not in SCHEMES or "://" not in url:
        raise ValueError(
            f"no store has the scheme {parts.scheme!r}; of servers there are "
            f"{', '.join(f'{name}://' for name in SCHEMES)}"
        )
    kind, tls = SCHEMES[parts.scheme]
    # where a password has a bare / ? or #, the rest of it stands behind what looks like the host
    options = _options(parts.query, show="@" not in parts.query)
    if parts.fragment:
        raise ValueError("a store's URL has no #; write %23 for one in a password")
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    path = unquote(parts.path)
    if parts.scheme == "unix":
        if hosts or not path.strip("/"):
            raise ValueError("unix:// is followed by the path of a socket: unix:///run/redis.sock")
        nodes: tuple[Node, ...] = (Node(path=path),)
        words = []
    else:
        nodes = _nodes(hosts, SENTINEL_PORT if kind == "sentinel" else PORT, kind)
        words = [word for word in path.split("/") if word]
    master = ""
    if kind == "sentinel":
        if not words:
            raise ValueError(
                "redis+sentinel:// names the master: redis+sentinel://host1,host2/mymaster"
            )
        master = words.pop(0)
    db = _db(words, options, kind)
    return Settings(
        kind=kind,
        nodes=nodes,
        scheme=parts.scheme,
        master=master,
        db=db,
        prefix=options.get("prefix"),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options, tls),
    )


def _options(query: str, *, show: bool) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            what = repr(name) if show else f"what stands behind its ?; {_ESCAPE}"
            raise ValueError(f"a store's URL takes {', '.join(_OPTIONS)}, not {what}")
        if name in options:
            raise ValueError(f"the URL of a store has {name}= twice")
        options[name] = value
    return options


def _nodes(hosts: str, port: int, kind: str) -> tuple[Node, ...]:
    nodes = tuple(_node(text, port) for text in (hosts or "localhost").split(","))
    if len(nodes) > 1 and kind == "single":
        raise ValueError(
            "redis:// names one server; for several there are redis+cluster:// and redis+sentinel://"
        )
    return nodes


def _node(text: str, port: int) -> Node:
    host, number = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address stands in brackets: redis://[::1]:6379")
        number = rest[1:]
    elif ":" in text:
        host, _, number = text.rpartition(":")
    if number and not (number.isascii() and number.isdecimal() and 0 < int(number) < 65536):
        raise ValueError(f"behind a host stands a port, 1 to 65535; {_ESCAPE}")
    return Node(unquote(host) or "localhost", int(number) if number else port)


def _db(words: list[str], options: dict[str, str], kind: str) -> int:
    text = words.pop(0) if words else options.get("db", "0")
    if words or not (text.isascii() and text.isdecimal()):
        raise ValueError("what follows the host is the number of a database: redis://localhost/0")
    if int(text) and kind == "cluster":
        raise ValueError("a cluster has database 0 alone")
    return int(text)


def _tls(options: dict[str, str], tls: bool) -> ssl.SSLContext | None:
    if not tls:
        for name in options:
            if name.startswith("ssl_"):
                raise ValueError(f"{name}= is for rediss:// and valkeys://")
        return None
    return tls_context(
        ca_certs=options.get("ssl_ca_certs"),
        certfile=options.get("ssl_certfile"),
        keyfile=options.get("ssl_keyfile"),
        cert_reqs=options.get("ssl_cert_reqs", "required"),
        check_hostname=_truth(options.get("ssl_check_hostname", "true")),
    )


def tls_context(
    *,
    ca_certs: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    cert_reqs: str = "required",
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """What TLS is to check, by the names of redis-py."""
    context = ssl.create_default_context(cafile=ca_certs)
    if cert_reqs not in ("required", "none", "optional"):
        raise ValueError(f"ssl_cert_reqs is 'required' or 'none', not {cert_reqs!r}")
    if cert_reqs == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.check_hostname = check_hostname
    if certfile is not None:
        context.load_cert_chain(certfile, keyfile)
    return context


def _truth(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"ssl_check_hostname is true or false, not {text!r}")
