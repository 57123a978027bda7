"""What limiters did: counters, the hottest keys, and how their stores fare.

`snapshot` needs nothing beyond the package. The collector for Prometheus is in
`sluicegate.observe.prometheus` and needs `pip install "sluicegate[prometheus]"`, the
instruments of OpenTelemetry are in `sluicegate.observe.otel`: `"sluicegate[otel]"`.
"""

from .snapshot import escape_key, hidden_key, snapshot, tables_of, top_keys, unescape_key

__all__ = ["escape_key", "hidden_key", "snapshot", "tables_of", "top_keys", "unescape_key"]
