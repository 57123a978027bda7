"""What limiters did: counters, the hottest keys, and a Prometheus collector.

`snapshot` needs nothing beyond the package; the collector is in
`sluicegate.observe.prometheus` and needs `pip install "sluicegate[prometheus]"`.
"""

from .snapshot import escape_key, hidden_key, snapshot, tables_of, top_keys, unescape_key

__all__ = ["escape_key", "hidden_key", "snapshot", "tables_of", "top_keys", "unescape_key"]
