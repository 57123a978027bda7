"""Client ids and waits, as people give and read them."""

from __future__ import annotations

from math import ceil, isinf

__all__ = ["client_key", "whole_seconds"]


def client_key(client_id: object) -> str | bytes:
    """One object for one client: str, where the bytes are UTF-8. An int is its digits.

    TypeError for anything else: a client that is None would be everybody.
    """
    if isinstance(client_id, str):
        return client_id
    if isinstance(client_id, bytes):
        try:
            return client_id.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return client_id
    if isinstance(client_id, int) and not isinstance(client_id, bool):
        return str(client_id)
    raise TypeError(f"a client id is a str or bytes, not {type(client_id).__name__}")


def whole_seconds(retry_after: float) -> int | None:
    """Seconds for a client, rounded up, at least 1; None for never."""
    return None if isinf(retry_after) else max(1, ceil(retry_after))
