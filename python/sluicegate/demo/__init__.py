"""The demo: a chat whose messages are limited, and a page that shows it.

`sluicegate demo` serves it; `create_app` makes the app for any ASGI server.
"""

from .app import create_app
from .settings import DemoSettings

__all__ = ["DemoSettings", "create_app"]
