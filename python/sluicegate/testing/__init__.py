"""For tests of what is limited: a clock to advance, another store, the decisions made.

The pytest fixtures `sluice_clock` and `sluice_store` are in `sluicegate.testing.fixtures`.
"""

from .clock import Clock
from .override import override
from .record import Record, record

__all__ = ["Clock", "Record", "override", "record"]
