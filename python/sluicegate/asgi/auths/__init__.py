"""Who a request is from: functions that make (user, group) of a scope.

One that finds nobody raises EmptyInformation.
"""

from __future__ import annotations

from .empty import EmptyInformation
from .ip import client_ip
from .jwt import create_jwt_auth
from .session import from_session
from .user import from_user

__all__ = ["EmptyInformation", "client_ip", "create_jwt_auth", "from_session", "from_user"]
