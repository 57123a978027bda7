"""The live page: where its files are, and what keeps it to itself."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["HEADERS", "STATIC", "is_same_origin"]

STATIC = Path(__file__).parent / "static"

# Everything comes from this server, and no script or style stands in a page.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def is_same_origin(origin: str | None, host: str) -> bool:
    """Whether a WebSocket comes from one of our own pages, or from no page at all.

    A browser lets any page open a WebSocket to any server, and says in Origin which page
    it was. Programs send no Origin.
    """
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
