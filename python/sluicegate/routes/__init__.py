"""Limits on the routes of Starlette's applications, and of what is made of them.

`limits`: what is written beside an endpoint. `guard`: what holds it, between an application's
exception handlers and its router. `sluicegate.starlette` and `sluicegate.fastapi` install it.
"""

from __future__ import annotations

from .limits import RateLimit, exempt, limit

__all__ = ["RateLimit", "exempt", "limit"]
