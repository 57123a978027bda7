"""A live page of an application's limits, to be mounted in it.

    app.mount("/limits", Dashboard({"chat": chat_limiter}, token=os.environ.get("LIMITS_TOKEN")))

Without a token it is off: nothing is there.
"""

from __future__ import annotations

from .app import Dashboard

__all__ = ["Dashboard"]
