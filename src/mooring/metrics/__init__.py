"""Prometheus text of mooring's own metrics, and the merge of the application's metrics."""
